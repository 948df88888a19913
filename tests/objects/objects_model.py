"""What S3 promises of keys and versions, as a dictionary: the measure for the object core."""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class ModelVersion:
    version_id: str  # as the store named it; "null"
    body: bytes
    etag: str
    marker: bool = False
    tags: dict[str, str] = field(default_factory=dict)


class ModelBucket:
    """Versions of each key, newest first."""

    def __init__(self) -> None:
        self.versioning = ""
        self.keys: dict[str, list[ModelVersion]] = {}

    def current(self, key: str) -> ModelVersion | None:
        versions = self.keys.get(key)
        return versions[0] if versions and not versions[0].marker else None

    def add(self, key: str, version: ModelVersion) -> None:
        versions = self.keys.setdefault(key, [])
        if self.versioning != "Enabled":
            versions[:] = [v for v in versions if v.version_id != "null"]
            version = replace(version, version_id="null")
        versions.insert(0, version)

    def delete(self, key: str, marker_id: str) -> None:
        if not self.versioning:
            self.keys.pop(key, None)
        else:
            self.add(key, ModelVersion(marker_id, b"", "", True))

    def delete_version(self, key: str, version_id: str) -> ModelVersion | None:
        versions = self.keys.get(key, [])
        for index, version in enumerate(versions):
            if version.version_id == version_id:
                del versions[index]
                if not versions:
                    del self.keys[key]
                return version
        return None

    def sorted_keys(self) -> list[str]:
        return sorted(self.keys, key=str.encode)

    def listing(self, prefix: str, delimiter: str, after: str) -> list[tuple[str, bool]]:
        """Items (text, is a common prefix) of a listing of live keys."""
        live = [key for key in self.sorted_keys() if self.current(key) is not None]
        return fold(live, prefix, delimiter, after)


def fold(keys: list[str], prefix: str, delimiter: str, after: str) -> list[tuple[str, bool]]:
    items: list[tuple[str, bool]] = []
    for key in keys:
        if not key.startswith(prefix):
            continue
        at = key.find(delimiter, len(prefix)) if delimiter else -1
        item = (key, False) if at < 0 else (key[: at + len(delimiter)], True)
        if item not in items and item[0].encode() > after.encode():
            items.append(item)
    return items
