"""The house stays in order: rooms use only the rooms below them, no module is dead, nothing outgrows a head."""

import ast
import re
import tomllib
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"

# Highest first; rooms on one line do not know each other (docs: ARCHITECTURE.md).
FLOORS = [
    {"cli"},
    {"client"},
    {"server", "library"},
    {"s3", "files", "console"},
    {"store"},
    {"iam", "jobs"},
    {"objects", "blocks"},
    {"chunks"},
    {"pools"},
    {"nodes"},
    {"segments", "backends"},
    {"state", "http"},
    {"errors", "limits", "machine", "host", "config", "metrics", "log", "loop_thread", "shared", "sigv4", "tree"},
]
GROUND = FLOORS[-1]
BESIDE = {"metadatadb": {"backends", *GROUND}}  # and testing, which may use all and is used by none

# Modules that are started or opened by name, not imported
ENTRIES = {
    "ostraka",
    "ostraka.__main__",
    "ostraka.backends",
    "ostraka.testing",
    "ostraka.testing.mount",
    "ostraka.testing.plugin",
    "ostraka.testing.simulation.__main__",
}

# Law 12: who may reach past the seams of host.py, and why
REACHES_PAST_SEAMS = {
    ("ostraka.state.ordered", "os.open"): "LMDB writes beneath any seam; its blocks are allocated through this",
    ("ostraka.state.checkpoint", "time.sleep"): "of nothing: other threads get the interpreter, no time is told",
}

FILE_LINES, FILE_LINES_MAX = 500, 700
FUNCTION_LINES, FUNCTION_LINES_MAX = 60, 100
FORBIDDEN_WORDS = {"manager", "helper", "util", "utility", "base", "common"}


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted((SOURCE / "ostraka").rglob("*.py"))}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports_of(module: str, path: Path) -> Iterator[tuple[str, int]]:
    """Every module of ours that this one imports, with the line; inside functions too."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")
            above = above[: len(above) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            submodules = [f"{origin}.{alias.name}" for alias in node.names]
            names = [s if s in MODULES else origin for s in submodules]
        else:
            continue
        for name in names:
            if name == "ostraka" or name.startswith("ostraka."):
                yield name, node.lineno


def allowed(user: str) -> set[str]:
    """The rooms that a room may use."""
    if user in BESIDE:
        return {user, *BESIDE[user]}
    if user in GROUND:
        return GROUND
    beside = set(BESIDE) if user in FLOORS[0] else set()
    for number, floor in enumerate(FLOORS):
        if user in floor:
            return beside.union({user}, *FLOORS[number + 1 :])
    raise AssertionError(f"the room {user!r} is not on the plan of {Path(__file__).name}")


def test_a_room_uses_only_the_rooms_below_it() -> None:
    wrong = []
    for module, path in MODULES.items():
        user = room_of(module)
        if user in ("testing", "", "__main__"):
            continue
        for imported, line in imports_of(module, path):
            used = room_of(imported)
            if used and used not in allowed(user):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {user} uses {used}, which is not below it")
    assert not wrong, "\n" + "\n".join(wrong)


def test_importing_the_package_imports_no_room() -> None:
    early = [node for node in tree_of(MODULES["ostraka"]).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    rooms = [n for n in early if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("ostraka")]
    assert not rooms, "ostraka/__init__.py: import inside functions, so that `import ostraka` stays light"


def test_no_module_is_dead() -> None:
    used = set(ENTRIES)
    with (ROOT / "pyproject.toml").open("rb") as file:
        scripts = tomllib.load(file)["project"]["scripts"]
    used.update(target.partition(":")[0] for target in scripts.values())
    for module, path in MODULES.items():
        used.update(name for name, _ in imports_of(module, path) if name != module)
    for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]:  # the public room for tests
        used.update(n for n, _ in imports_of("", path) if room_of(n) == "testing")
    for path in MODULES.values():  # imported by name when it is wanted (the command line's commands)
        used.update(
            n.value for n in ast.walk(tree_of(path)) if isinstance(n, ast.Constant) and isinstance(n.value, str)
        )
    for name in list(used):  # a package is used by the use of what is in it
        parts = name.split(".")
        used.update(".".join(parts[:i]) for i in range(1, len(parts)))
    dead = sorted(set(MODULES) - used)
    assert not dead, f"imported by nobody: {', '.join(dead)}"


def test_modules_are_named_after_what_they_are() -> None:
    words = {w.rstrip("s"): name for name in MODULES for w in re.split(r"[._]", name)}
    assert not {words[w] for w in FORBIDDEN_WORDS if w in words}


def functions_of(path: Path) -> Iterator[tuple[str, int, int]]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


def test_files_and_functions_fit_in_a_head() -> None:
    questions, wrong = [], []
    for path in MODULES.values():
        if path.name == "_model.py":  # generated
            continue
        place = path.relative_to(ROOT)
        lines = len(path.read_text().splitlines())
        sized = [(f"{place}: {lines} lines", lines, FILE_LINES, FILE_LINES_MAX)]
        sized += [
            (f"{place}:{line}: {name} has {n} lines", n, FUNCTION_LINES, FUNCTION_LINES_MAX)
            for name, line, n in functions_of(path)
        ]
        questions += [text for text, n, soft, hard in sized if soft < n <= hard]
        wrong += [text for text, n, _, hard in sized if n > hard]
    if questions:
        warnings.warn("long enough to ask why:\n  " + "\n  ".join(questions), stacklevel=1)
    assert not wrong, "\n" + "\n".join(wrong)


def reaches(path: Path) -> Iterator[tuple[str, int]]:
    """(what, line) of every use of a clock, of randomness or of files that does not go through host.py."""
    past = {
        "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"},
        "os": {"urandom", "open", "fdopen", "rename", "replace", "unlink", "fsync", "fdatasync"},
        "datetime": {"now", "utcnow", "today"},
        "uuid": {"uuid1", "uuid4"},
        "random": {"random", "randrange", "randint", "choice", "randbytes", "uniform", "shuffle"},
        "secrets": {"token_bytes", "token_hex", "token_urlsafe", "randbelow", "choice"},
    }
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in past.get(node.value.id, ()):
                yield f"{node.value.id}.{node.attr}", node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module in past:
            for alias in node.names:
                if alias.name in past[node.module]:
                    yield f"{node.module}.{alias.name}", node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            yield "open", node.lineno


def test_law_12_time_randomness_and_files_are_reached_through_seams() -> None:
    wrong, seen = [], set()
    for module, path in MODULES.items():
        if room_of(module) in {"testing", "cli", "server", *GROUND}:
            continue
        for what, line in reaches(path):
            seen.add((module, what))
            if (module, what) not in REACHES_PAST_SEAMS:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {what} reaches past ostraka.host")
    assert not wrong, "\n" + "\n".join(wrong)
    stale = {key for key in REACHES_PAST_SEAMS if key[0] in MODULES and key not in seen}
    assert not stale, f"allowed and not used any more: {stale}"
