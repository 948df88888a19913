"""What is to be done with one object, as something that can be shown before it is done."""

import mimetypes
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from ostraka.client.transfer import Transfer
from ostraka.client.types import Attributes, Client, Entry, place

UPLOAD, DOWNLOAD, COPY, DELETE = "upload", "download", "copy", "delete"


class Action(msgspec.Struct, frozen=True):
    """``verb`` from ``source`` to ``target`` ("" for a deletion)."""

    verb: str
    source: str
    target: str
    size: int
    do: Callable[[], object]


class Actions:
    """Makes actions on one store. ``attributes``: of what is uploaded; a content type that is not given is guessed."""

    def __init__(self, client: Client, transfer: Transfer, attributes: Attributes | None = None) -> None:
        self._client = client
        self._transfer = transfer
        self._attributes = attributes or Attributes()

    def upload(self, path: Path, size: int, bucket: str, key: str) -> Action:
        return Action(
            UPLOAD,
            str(path),
            place(bucket, key),
            size,
            partial(self._transfer.upload, path, bucket, key, self.attributes_for(key)),
        )

    def attributes_for(self, key: str) -> Attributes:
        if self._attributes.content_type:
            return self._attributes
        kind, coding = mimetypes.guess_type(key)
        guessed = kind if kind and not coding else {"gzip": "application/gzip"}.get(coding or "", "")
        return msgspec.structs.replace(self._attributes, content_type=guessed)

    def download(self, bucket: str, entry: Entry, target: Path) -> Action:
        def do() -> None:
            self._transfer.download(self._client.head(bucket, entry.key), target)

        return Action(DOWNLOAD, place(bucket, entry.key), str(target), entry.size, do)

    def copy(self, bucket: str, entry: Entry, to_bucket: str, to_key: str) -> Action:
        def do() -> None:
            self._transfer.copy(self._client.head(bucket, entry.key), to_bucket, to_key)

        return Action(COPY, place(bucket, entry.key), place(to_bucket, to_key), entry.size, do)
