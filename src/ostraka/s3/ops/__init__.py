"""The operations of S3: each takes a ``Call`` (who asks what of which bucket and key) and gives a ``Response``.

They know S3's rules and the object core's interface (objects.types.Objects); of HTTP they know requests and responses,
of signatures nothing. ``registry.HANDLERS`` names all that are built.
"""
