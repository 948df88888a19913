"""A random history of the whole object interface beside a dictionary that knows S3's rules: steps, and what must hold.

After every step the tables agree with each other, chunks count exactly what is referenced, and what was asked for is
what the model holds. Now and then the process dies and another goes on.
"""

import asyncio
import random
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from objects_model import ModelBucket, ModelVersion, fold
from objects_rig import SIZES, Body, Md5, Rig, assemble, md5

from ostraka.errors import Absent, Exists, Invalid, PreconditionFailed
from ostraka.objects.types import Attributes, CompletePart, DeleteMarker, WriteConditions
from ostraka.testing.memory_chunks import MemoryChunks

KEYS = ("a", "a/", "a/b", "a/b/c", "a/c", "a0", "b", "\x00", "\x01", "a\x00", "a\x01/x", "é/ü", "//", "\U0001f600/x")
keys = st.one_of(st.sampled_from(("a", "a/b")), st.sampled_from(("a", "a/b", "a/c")), st.sampled_from(KEYS))
sizes = st.integers(0, len(SIZES) - 1)  # an index into the history's own sizes
picks = st.integers(0, 10**6)


class History(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.rig = self.do(self.make_rig())
        self.buckets = {"one": ModelBucket(), "two": ModelBucket()}
        self.uploads: list[tuple[str, str, str, dict[int, bytes]]] = []  # bucket, key, id, parts
        self.readers: list[tuple[Any, bytes]] = []
        self.bodies = random.Random(1)

    body_sizes = SIZES

    async def make_rig(self) -> Rig:
        return await Rig().start("one", "two")

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        for reader, _ in self.readers:
            reader.close()
        self.do(self.rig.verify_settled())
        self.loop.close()

    def body(self, index: int) -> bytes:
        size = self.body_sizes[index]
        # half of the large ones are made of chunks that come again
        return bytes(size) if self.bodies.random() < 0.5 else self.bodies.randbytes(size)

    def all_versions(self) -> list[tuple[str, str, ModelVersion]]:
        return [(b, k, v) for b, bucket in self.buckets.items() for k in bucket.sorted_keys() for v in bucket.keys[k]]

    # -- buckets

    @rule(bucket=st.sampled_from(("one", "two")), status=st.sampled_from(("Enabled", "Suspended")))
    def versioning(self, bucket: str, status: str) -> None:
        self.do(self.rig.set_versioning(bucket, status))
        self.buckets[bucket].versioning = status

    @rule(bucket=st.sampled_from(("one", "two")))
    def bucket_goes_only_when_empty(self, bucket: str) -> None:
        if self.buckets[bucket].keys:
            with pytest.raises(Exists):
                self.do(self.rig.objects.delete_bucket(bucket))
            return
        self.do(self.rig.objects.delete_bucket(bucket))
        with pytest.raises(Absent):
            self.rig.objects.bucket(bucket)
        self.do(self.rig.objects.create_bucket(bucket, "alice", "us-east-1"))
        self.buckets[bucket] = ModelBucket()
        self.uploads = [upload for upload in self.uploads if upload[0] != bucket]

    # -- objects

    @rule(
        bucket=st.sampled_from(("one", "two")),
        key=keys,
        size=sizes,
        known=st.booleans(),
        here=st.booleans(),
        condition=st.sampled_from(("", "", "create", "match", "other", "any")),
    )
    def put(self, bucket: str, key: str, size: int, known: bool, here: bool, condition: str) -> None:
        model, body = self.buckets[bucket], self.body(size)
        current = model.current(key)
        etag = current.etag if current else "none"
        conditions = {
            "": WriteConditions(),
            "create": WriteConditions(if_none_match=True),
            "match": WriteConditions(if_match=("x", etag)),
            "other": WriteConditions(if_match=("x",)),
            "any": WriteConditions(if_match=("*",)),
        }[condition]
        refused: Any = None
        if condition == "create" and current is not None:
            refused = PreconditionFailed
        elif conditions.if_match:
            refused = Absent if current is None else PreconditionFailed if condition == "other" else None
        work = self.rig.put(bucket, key, body, known=known, here=here, conditions=conditions)
        if refused is not None:
            with pytest.raises(refused):
                self.do(work)
            return
        info = self.do(work)
        assert (info.size, info.etag) == (len(body), md5(body))
        assert (info.latest, info.versioned) == (True, bool(model.versioning))
        model.add(key, ModelVersion(info.version_id, body, info.etag))

    @precondition(lambda self: self.all_versions())
    @rule(pick=picks, offset=picks, length=picks)
    def get(self, pick: int, offset: int, length: int) -> None:
        found = self.all_versions()
        bucket, key, version = found[pick % len(found)]
        named = None if self.buckets[bucket].keys[key][0] is version and pick % 2 else version.version_id
        if version.marker:
            with pytest.raises(DeleteMarker) as raised:
                self.rig.objects.lookup(bucket, key, named)
            assert (raised.value.version_id, raised.value.named) == (version.version_id, named is not None)
            return
        assert self.do(self.rig.get(bucket, key, named)) == version.body
        info = self.rig.objects.lookup(bucket, key, named)
        assert (info.version_id, info.etag, dict(info.attributes.tags)) == (
            version.version_id,
            version.etag,
            version.tags,
        )
        assert info.latest == (self.buckets[bucket].keys[key][0] is version)
        offset %= len(version.body) + 1
        length %= len(version.body) - offset + 1
        in_pieces, at_once = self.do(self.rig.get_range(bucket, key, named, offset, length))
        assert in_pieces == version.body[offset : offset + length]
        assert at_once is None or at_once == in_pieces

    @precondition(lambda self: self.all_versions() and len(self.readers) < 3)
    @rule(pick=picks)
    def open_and_keep(self, pick: int) -> None:
        found = [version for version in self.all_versions() if not version[2].marker]
        if found:
            bucket, key, version = found[pick % len(found)]
            self.readers.append((self.rig.objects.open(bucket, key, version.version_id), version.body))

    @precondition(lambda self: self.readers)
    @rule()
    def what_was_opened_stays_readable(self) -> None:
        reader, body = self.readers.pop(0)

        async def whole() -> bytes:
            return b"".join([bytes(piece) async for piece in reader.read()])

        assert self.do(whole()) == body
        reader.close()

    @rule(bucket=st.sampled_from(("one", "two")), key=keys)
    def delete(self, bucket: str, key: str) -> None:
        answer = self.do(self.rig.objects.delete(bucket, key, owner="alice"))
        versioning = self.buckets[bucket].versioning
        assert answer.delete_marker == bool(versioning)
        assert (answer.version_id == "null") == (versioning == "Suspended")
        self.buckets[bucket].delete(key, answer.version_id)

    @precondition(lambda self: self.all_versions())
    @rule(pick=picks)
    def delete_version(self, pick: int) -> None:
        found = self.all_versions()
        bucket, key, version = found[pick % len(found)]
        answer = self.do(self.rig.objects.delete(bucket, key, version.version_id))
        assert (answer.version_id, answer.delete_marker) == (version.version_id, version.marker)
        self.buckets[bucket].delete_version(key, version.version_id)

    @precondition(lambda self: self.all_versions())
    @rule(pick=picks)
    def delete_the_newest_version(self, pick: int) -> None:
        """What follows it, an object or a marker or nothing, becomes current."""
        named = sorted({(bucket, key) for bucket, key, _ in self.all_versions()})
        named.sort(key=lambda name: -len(self.buckets[name[0]].keys[name[1]]))
        bucket, key = named[pick % min(2, len(named))]
        version = self.buckets[bucket].keys[key][0]
        self.do(self.rig.objects.delete(bucket, key, version.version_id))
        self.buckets[bucket].delete_version(key, version.version_id)

    @rule(bucket=st.sampled_from(("one", "two")), pick=picks)
    def delete_many(self, bucket: str, pick: int) -> None:
        """Several keys, some by version."""
        rnd, model = random.Random(pick), self.buckets[bucket]
        wanted: list[tuple[str, str | None]] = [(rnd.choice(KEYS), None) for _ in range(3)]
        wanted += [(k, v.version_id) for b, k, v in self.all_versions() if b == bucket and rnd.random() < 0.4]
        rnd.shuffle(wanted)
        wanted = list(dict.fromkeys(wanted))  # which of several for one key is last is the store's affair
        keys_named = [key for key, _ in wanted]
        wanted = [item for item in wanted if keys_named.count(item[0]) == 1]
        for (key, version_id), answer in zip(
            wanted, self.do(self.rig.objects.delete_many(bucket, wanted, owner="alice")), strict=True
        ):
            assert not isinstance(answer, Exception)
            if version_id is None:
                model.delete(key, answer.version_id)
            else:
                model.delete_version(key, version_id)

    @precondition(lambda self: self.all_versions())
    @rule(pick=picks, bucket=st.sampled_from(("one", "two")), key=keys)
    def copy(self, pick: int, bucket: str, key: str) -> None:
        found = [version for version in self.all_versions() if not version[2].marker]
        if not found:
            return
        from_bucket, from_key, version = found[pick % len(found)]
        source = self.rig.objects.lookup(from_bucket, from_key, version.version_id)
        info = self.do(self.rig.objects.copy(source, bucket, key, Attributes(tags={"n": "1"}), owner="alice"))
        self.buckets[bucket].add(key, ModelVersion(info.version_id, version.body, version.etag, tags={"n": "1"}))

    @precondition(lambda self: self.all_versions())
    @rule(pick=picks)
    def tag(self, pick: int) -> None:
        found = [version for version in self.all_versions() if not version[2].marker]
        if not found:
            return
        bucket, key, version = found[pick % len(found)]
        self.do(self.rig.objects.update_tags(bucket, key, version.version_id, {"t": str(pick)}))
        version.tags.clear()
        version.tags["t"] = str(pick)

    # -- multipart

    @precondition(lambda self: len(self.uploads) < 4)
    @rule(bucket=st.sampled_from(("one", "two")), key=keys)
    def create_upload(self, bucket: str, key: str) -> None:
        upload = self.do(self.rig.objects.create_upload(bucket, key, Attributes(), owner="alice"))
        self.uploads.append((bucket, key, upload.upload_id, {}))

    @precondition(lambda self: self.uploads)
    @rule(pick=picks, number=st.integers(1, 7), size=sizes, known=st.booleans())
    def put_part(self, pick: int, number: int, size: int, known: bool) -> None:
        bucket, key, upload_id, parts = self.uploads[pick % len(self.uploads)]
        body = self.body(size)
        part = self.do(self.rig.objects.put_part(bucket, key, upload_id, number, Body(body, known=known), Md5()))
        assert (part.number, part.size, part.etag) == (number, len(body), md5(body))
        parts[number] = body

    @precondition(lambda self: self.uploads and self.all_versions())
    @rule(pick=picks, number=st.integers(1, 7), offset=picks, length=picks)
    def copy_part(self, pick: int, number: int, offset: int, length: int) -> None:
        bucket, key, upload_id, parts = self.uploads[pick % len(self.uploads)]
        found = [version for version in self.all_versions() if not version[2].marker]
        if not found:
            return
        from_bucket, from_key, version = found[pick % len(found)]
        offset %= len(version.body) + 1
        length %= len(version.body) - offset + 1
        source = self.rig.objects.lookup(from_bucket, from_key, version.version_id)
        part = self.do(self.rig.objects.copy_part(bucket, key, upload_id, number, source, offset, length, Md5()))
        parts[number] = version.body[offset : offset + length]
        assert part.etag == md5(parts[number])

    @precondition(lambda self: self.uploads)
    @rule(pick=picks)
    def complete(self, pick: int) -> None:
        index = pick % len(self.uploads)
        bucket, key, upload_id, parts = self.uploads[index]
        listed, more = self.rig.objects.list_parts(bucket, key, upload_id, 0, 100)
        assert [(part.number, part.etag) for part in listed] == [(n, md5(parts[n])) for n in sorted(parts)]
        assert not more
        chosen = [n for n in sorted(parts) if pick % 3 or n % 2]
        asked = [CompletePart(n, md5(parts[n])) for n in chosen]
        work = self.rig.objects.complete_upload(bucket, key, upload_id, asked, assemble)
        if not chosen or any(len(parts[n]) < self.rig.limits.part_size_min for n in chosen[:-1]):
            with pytest.raises(Invalid):
                self.do(work)
            return
        info = self.do(work)
        body = b"".join(parts[n] for n in chosen)
        assert info.size == len(body)
        again = self.do(self.rig.objects.complete_upload(bucket, key, upload_id, asked, assemble))
        assert (again.etag, again.version_id, again.size) == (info.etag, info.version_id, info.size)
        self.buckets[bucket].add(key, ModelVersion(info.version_id, body, info.etag))
        del self.uploads[index]
        offset, found = 0, self.do(self.rig.parts(bucket, key, len(chosen)))
        for place, original in zip(found, chosen, strict=True):
            assert place == (offset, len(parts[original]))
            offset += len(parts[original])

    @precondition(lambda self: self.uploads)
    @rule(pick=picks)
    def abort(self, pick: int) -> None:
        bucket, key, upload_id, _ = self.uploads.pop(pick % len(self.uploads))
        self.do(self.rig.objects.abort_upload(bucket, key, upload_id))
        with pytest.raises(Absent):
            self.rig.objects.upload(bucket, key, upload_id)

    # -- listings

    @rule(
        bucket=st.sampled_from(("one", "two")),
        prefix=st.sampled_from(("", "a", "a/", "a/b", "\x00", "é", "zz")),
        delimiter=st.sampled_from(("", "/", "b", "//")),
        after=st.sampled_from(("", "a", "a/", "a/b", "b", "\U0001f600")),
        limit=st.integers(1, 5),
    )
    def list(self, bucket: str, prefix: str, delimiter: str, after: str, limit: int) -> None:
        model, start = self.buckets[bucket], after
        items: list[tuple[str, bool]] = []
        while True:
            page = self.rig.objects.list(bucket, prefix, delimiter, after, limit)
            found = [(entry.key, False) for entry in page.entries] + [(text, True) for text in page.prefixes]
            assert len(found) <= limit
            assert page.rows_read <= 4 * limit + 20
            for entry in page.entries:
                current = model.current(entry.key)
                assert current is not None
                assert (entry.etag, entry.size) == (current.etag, len(current.body))
            items += sorted(found, key=lambda item: item[0].encode())
            if not page.truncated:
                break
            after = page.next
        assert items == model.listing(prefix, delimiter, start)

    @rule(
        bucket=st.sampled_from(("one", "two")),
        prefix=st.sampled_from(("", "a", "a/", "\x01")),
        delimiter=st.sampled_from(("", "/")),
        limit=st.integers(1, 4),
    )
    def list_versions(self, bucket: str, prefix: str, delimiter: str, limit: int) -> None:
        model = self.buckets[bucket]
        want: list[tuple[str, str, bool]] = []
        for text, common in fold(model.sorted_keys(), prefix, delimiter, ""):
            want += [(text, "", True)] if common else [(text, v.version_id, False) for v in model.keys[text]]
        found: list[tuple[str, str, bool]] = []
        after_key = after_version = ""
        while True:
            page = self.rig.objects.list_versions(bucket, prefix, delimiter, after_key, after_version, limit)
            here = [(e.key, e.version_id, False) for e in page.entries] + [(p, "", True) for p in page.prefixes]
            for entry in page.entries:
                first = model.keys[entry.key][0]
                assert entry.latest == (first.version_id == entry.version_id)
            found += sorted(here, key=lambda item: item[0].encode())
            if not page.truncated:
                break
            after_key, after_version = page.next_key, page.next_version
        assert found == want

    @rule(bucket=st.sampled_from(("one", "two")), delimiter=st.sampled_from(("", "/")), limit=st.integers(1, 2))
    def list_uploads(self, bucket: str, delimiter: str, limit: int) -> None:
        mine = sorted((u for u in self.uploads if u[0] == bucket), key=lambda u: u[1].encode())
        want: list[tuple[str, str]] = []
        for text, common in fold(list(dict.fromkeys(u[1] for u in mine)), "", delimiter, ""):
            want += [(text, "")] if common else [(u[1], u[2]) for u in mine if u[1] == text]
        found: list[tuple[str, str]] = []
        after_key = after_upload = ""
        while True:
            page = self.rig.objects.list_uploads(bucket, "", delimiter, after_key, after_upload, limit)
            here = [(u.key, u.upload_id) for u in page.entries] + [(p, "") for p in page.prefixes]
            found += sorted(here, key=lambda item: item[0].encode())
            if not page.truncated:
                break
            after_key, after_upload = page.next_key, page.next_upload
        assert found == want

    # -- what goes on beside

    @rule(limit=st.integers(1, 50))
    def collect(self, limit: int) -> None:
        self.do(self.rig.collector.collect(limit))

    @precondition(lambda self: not self.readers)
    @rule()
    def crash(self) -> None:
        """The process dies and another starts; the collector of the new one buries the old one."""
        old = self.rig
        self.rig = self.do(old.another())
        self.rig.dead.update(old.dead | {old.incarnation})

    @invariant()
    def tables_agree(self) -> None:
        self.rig.verify()
        if isinstance(self.rig.chunks, MemoryChunks):
            assert self.rig.chunks.readers == 0


def random_step(history: History, rnd: random.Random) -> None:
    """A step of a history, drawn evenly: long, where Hypothesis' own histories are short and alike."""
    pick = rnd.randrange(10**6)
    bucket, key = rnd.choice(("one", "one", "two")), rnd.choice(("a", "a", "a/b", *KEYS))
    size, number = rnd.randrange(len(SIZES)), rnd.randint(1, 7)
    offset, length = rnd.randrange(10**6), rnd.randrange(10**6)
    versions, uploads = bool(history.all_versions()), bool(history.uploads)
    known = rnd.random() < 0.7
    condition = rnd.choice(("", "", "", "create", "match", "other", "any"))
    steps: list[tuple[int, bool, Any]] = [
        (1, True, lambda: history.versioning(bucket, rnd.choice(("Enabled", "Suspended")))),
        (1, rnd.random() < 0.2, lambda: history.bucket_goes_only_when_empty(bucket)),
        (8, True, lambda: history.put(bucket, key, size, known, rnd.random() < 0.2, condition)),
        (4, versions, lambda: history.get(pick, offset, length)),
        (1, versions and len(history.readers) < 3, lambda: history.open_and_keep(pick)),
        (1, bool(history.readers), history.what_was_opened_stays_readable),
        (3, True, lambda: history.delete(bucket, key)),
        (3, versions, lambda: history.delete_version(pick)),
        (3, versions, lambda: history.delete_the_newest_version(pick)),
        (1, True, lambda: history.delete_many(bucket, pick)),
        (3, versions, lambda: history.copy(pick, bucket, key)),
        (1, versions, lambda: history.tag(pick)),
        (2, len(history.uploads) < 4, lambda: history.create_upload(bucket, key)),
        (6, uploads, lambda: history.put_part(pick, number, size, known)),
        (4, uploads and versions, lambda: history.copy_part(pick, number, offset, length)),
        (3, uploads, lambda: history.complete(pick)),
        (1, uploads, lambda: history.abort(pick)),
        (1, True, lambda: history.list(bucket, rnd.choice(("", "a", "a/")), rnd.choice(("", "/", "b")), "", number)),
        (1, True, lambda: history.list_versions(bucket, rnd.choice(("", "a")), rnd.choice(("", "/")), number)),
        (1, True, lambda: history.list_uploads(bucket, rnd.choice(("", "/")), number)),
        (3, True, lambda: history.collect(pick % 50 + 1)),
        (1, not history.readers, history.crash),
    ]
    possible = [(weight, step) for weight, allowed, step in steps if allowed]
    rnd.choices([step for _, step in possible], [weight for weight, _ in possible])[0]()
