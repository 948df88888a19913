"""The backend over a container of Azure Blob Storage. Needs the extra ``remote``."""

from ostraka.backends.azure.backend import AzureBackend, AzureConfig
from ostraka.backends.azure.credentials import (
    AccountKey,
    Anonymous,
    ConnectionString,
    Credentials,
    Default,
    Identity,
    Sas,
)
from ostraka.backends.azure.signing import Access

__all__ = [
    "Access",
    "AccountKey",
    "Anonymous",
    "AzureBackend",
    "AzureConfig",
    "ConnectionString",
    "Credentials",
    "Default",
    "Identity",
    "Sas",
]
