"""What stores behind HTTP have in common: requests, parallel ranges, uploads in parts, lent credentials.

A store's own part is a ``Service`` (service.py): its requests, one method each. ``RemoteBackend`` (backend.py) makes a
backend of one.
"""
