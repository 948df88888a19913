"""Cases: what is listed, in which order, and many paths at once."""

import time
from contextlib import aclosing
from typing import Final

from ostraka.backends import Backend, Capability, DeletesBatches, ListsDirectories, RemovesDirectories, require
from ostraka.errors import Invalid
from ostraka.testing.backends.case import Case, collector, holds, listed, refused, same, stat_of, together

CASES: list[Case] = []
case = collector(CASES)

MANY: Final = 1100  # paths: more than one page of any store's listing, and than one of its batches


@case()
async def a_prefix_is_a_string(backend: Backend) -> None:
    for path in ("db/cpu/1", "db/cpu/2", "db/cpu2/1", "db/cp", "db-x", "x"):
        await backend.write(path, b"")
    prefixes = {
        "": ["db-x", "db/cp", "db/cpu/1", "db/cpu/2", "db/cpu2/1", "x"],
        "db": ["db-x", "db/cp", "db/cpu/1", "db/cpu/2", "db/cpu2/1"],
        "db/": ["db/cp", "db/cpu/1", "db/cpu/2", "db/cpu2/1"],
        "db/cp": ["db/cp", "db/cpu/1", "db/cpu/2", "db/cpu2/1"],
        "db/cpu": ["db/cpu/1", "db/cpu/2", "db/cpu2/1"],
        "db/cpu/": ["db/cpu/1", "db/cpu/2"],
        "db/cpu/2": ["db/cpu/2"],
        "db/cpu/2/": [],
        "db/cpu/22": [],
        "nothing": [],
        "nothing/at/all/": [],
        "x/": [],
    }
    for prefix, wanted in prefixes.items():
        same(await listed(backend, prefix), wanted, f"list of {prefix!r}")


@case()
async def a_list_is_in_byte_order_of_whole_paths(backend: Backend) -> None:
    paths = [
        "a b",
        "a!b",
        "a-b",
        "a.b",
        "a/b",
        "a0",
        "aa",
        "a/b-c/d",
        "a/b.c",
        "b/a/a",
        "b-/a",
        "b.a",
        "Z",
        "~",
        ".a/b",
    ]
    paths += ["é", "e\u0301", "\uffee", "\U0001f3fa", "z/\U0001f3fa", "z/\uffee", "z\uffee/a"]
    for path in paths:
        await backend.write(path, b"")
    ordered = sorted(paths, key=str.encode)
    same(await listed(backend), ordered, "the order")
    for number, path in enumerate(ordered):
        same(await listed(backend, start_after=path), ordered[number + 1 :], f"what comes after {path!r}")
    for after, prefix in (("a/", "a"), ("a/b/", ""), ("a.", "a"), ("b", ""), ("b/", "b"), ("zz", "z/"), ("A", "a/")):
        wanted = [p for p in ordered if p.startswith(prefix) and p.encode() > after.encode()]
        same(await listed(backend, prefix, start_after=after), wanted, f"what begins with {prefix!r} after {after!r}")


@case()
async def a_list_tells_of_each_what_stat_tells(backend: Backend) -> None:
    for number in range(5):
        await backend.write(f"a/{number}", b"x" * number)
    entries = [entry async for entry in backend.list_entries("a/")]
    same([e.path for e in entries], [f"a/{n}" for n in range(5)], "the paths")
    for number, entry in enumerate(entries):
        same(entry.stat.size, number, f"the size of {entry.path}")
        stat = await stat_of(backend, entry.path)
        same(entry.stat.etag, stat.etag, f"the ETag of {entry.path}")
        holds(abs(entry.stat.modified - stat.modified) < 1, "the time that stat tells, to the second")
        holds(abs(entry.stat.modified - time.time()) < 3600, "a time of today")


@case()
async def many_paths_are_listed_and_deleted(backend: Backend) -> None:
    paths = [f"many/{n // 100:02d}/{n:05d}" for n in range(MANY)]
    await together([lambda p=p: backend.write(p, b"") for p in paths])  # type: ignore[misc]
    same(await listed(backend), paths, "all of them")
    same(await listed(backend, "many/", start_after=paths[1010]), paths[1011:], "those after one of them")
    async with aclosing(backend.list("many/")) as some:  # type: ignore[type-var]
        same([await anext(some) for _ in range(3)], paths[:3], "the first of a list that is left early")
    if Capability.BATCH_DELETE in backend.capabilities:
        same(await require(backend, DeletesBatches).delete_batch(iter(paths)), [], "failures")
    else:
        await together([lambda p=p: backend.delete(p) for p in paths])  # type: ignore[misc]
    same(await listed(backend), [], "what is left")


@case(Capability.BATCH_DELETE)
async def a_batch_tells_what_was_not_deleted(backend: Backend) -> None:
    batches = require(backend, DeletesBatches)
    same(await batches.delete_batch([]), [], "the failures of nothing")
    for path in ("a/1", "a/2", "b"):
        await backend.write(path, b"")
    failures = await batches.delete_batch(["a/1", "nothing", "../b", "a/2", "a/2"])
    same([f.path for f in failures], ["../b"], "what was not deleted")
    holds(isinstance(failures[0].error, Invalid), f"the reason why, not {failures[0].error!r}")
    same(await listed(backend), ["b"], "what is left")


@case(Capability.DIRECTORIES)
async def directories_are_what_paths_go_through(backend: Backend) -> None:
    directories = require(backend, ListsDirectories)
    for path in ("db1/cpu/1", "db1/cpu/2", "db1/.mem/1", "db1/file", "db2/x/y/z", "db-3/a", ".hidden/a", "file"):
        await backend.write(path, b"")
    wanted = {
        "": [".hidden", "db-3", "db1", "db2"],
        "db1/": ["db1/.mem", "db1/cpu"],
        "db1/cpu/": [],
        "db2/x/": ["db2/x/y"],
        "nothing/": [],
        "file/": [],
    }
    for prefix, names in wanted.items():
        same([d async for d in directories.list_directories(prefix)], names, f"the directories of {prefix!r}")
    await backend.delete("db2/x/y/z")
    same([d async for d in directories.list_directories()], [".hidden", "db-3", "db1"], "those with a path in them")
    for bad in ("db1", "/", "a//", "../"):
        with refused(Invalid, "path", what=f"the directories of {bad!r}"):
            _ = [d async for d in directories.list_directories(bad)]


@case(Capability.REMOVE_DIRECTORY)
async def a_directory_is_removed_if_no_path_is_in_it(backend: Backend) -> None:
    directories = require(backend, RemovesDirectories)
    await backend.write("a/b/c", b"x")
    same(await directories.remove_directory("a/b"), False, "whether one with a path in it is gone")
    same(await directories.remove_directory("a"), False, "whether one above it is gone")
    same(await backend.read("a/b/c"), b"x", "what is in it")
    await backend.delete("a/b/c")
    same(await directories.remove_directory("a"), True, "whether the empty one is gone")
    same(await directories.remove_directory("a/b"), True, "whether an absent one is gone")
    await backend.write("a", b"now a path")
    same(await backend.read("a"), b"now a path", "what took its place")
    same(await directories.remove_directory("a"), True, "no directory is at a path")
    same(await backend.read("a"), b"now a path", "what is there")
    with refused(Invalid, "path"):
        await directories.remove_directory("../a")
