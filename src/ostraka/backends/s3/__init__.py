"""The backend over a bucket of S3, or of what speaks as S3 does. Needs the extra ``remote``."""

from ostraka.backends.s3.backend import S3Backend, S3Config
from ostraka.backends.s3.credentials import Anonymous, Credentials, Default, Environment, Instance, Named, Profile
from ostraka.sigv4 import Keys

__all__ = [
    "Anonymous",
    "Credentials",
    "Default",
    "Environment",
    "Instance",
    "Keys",
    "Named",
    "Profile",
    "S3Backend",
    "S3Config",
]
