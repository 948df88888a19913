"""S3's XML, both ways, driven by the service model: requests in (read), answers and errors out (write, lists)."""

from ostraka.s3.xml.lists import common_prefixes, contents, iso_time, list_result, url_encode, versions
from ostraka.s3.xml.read import decode, decode_payload
from ostraka.s3.xml.write import encode, encode_output, error_document, escape

__all__ = [
    "common_prefixes",
    "contents",
    "decode",
    "decode_payload",
    "encode",
    "encode_output",
    "error_document",
    "escape",
    "iso_time",
    "list_result",
    "url_encode",
    "versions",
]
