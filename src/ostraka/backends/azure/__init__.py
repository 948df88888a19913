"""The backend over a container of Azure Blob Storage."""
