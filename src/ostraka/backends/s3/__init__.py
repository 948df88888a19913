"""The backend over a bucket of S3, or of what speaks as S3 does."""
