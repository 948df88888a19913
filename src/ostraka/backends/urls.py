"""URLs: a backend and a path in it, in one word.

    file:///data/photos/2024/a.jpg      a file; file:photos/a.jpg from the working directory
    s3://BUCKET/PATH                    options: endpoint, region, path_style, profile, anonymous, instance, ca_file,
                                        conditional_writes, conditional_deletes
    az://CONTAINER/PATH                 options: account, endpoint, anonymous, identity, ca_file
    memory:PATH                         of this process only

Options follow a "?": ``s3://photos/a?endpoint=http://127.0.0.1:9000``. In the path, %XX stands for a byte: %3F for "?"
and %25 for "%". Secrets are in no URL: they come from the environment, as the credentials of each backend say.

The root of a file's backend is the directory that ``?root=`` names; else the nearest one above the path that already
is a root; else the directory that the path is in.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from ostraka.backends.backend import Backend
from ostraka.backends.configs import from_config
from ostraka.backends.paths import RESERVED, check_path
from ostraka.errors import Invalid

Options = dict[str, str]


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL names: the configuration of a backend, and a path (or the beginning of paths; may be "")."""

    config: Mapping[str, Any]
    path: str

    def open(self) -> Backend:
        """The backend. NotSupported (reason "extra") if it needs a package that is not installed."""
        return from_config(self.config)

    def url(self, path: str | None = None) -> str:
        """The URL of a path (else of this one) in that backend, such as a person could give; the same for the same."""
        config, kind = self.config, self.config["type"]
        if kind == "local":
            place = f"file://{config['root'].rstrip('/')}/"
        elif kind == "memory":
            place = "memory:"
        else:
            place = f"s3://{config['bucket']}/" if kind == "s3" else f"az://{config['container']}/"
        names = [config.get("prefix", ""), self.path if path is None else path]
        whole = "/".join(name for name in names if name).replace("%", "%25").replace("?", "%3F")
        options = "&".join(f"{name}={config[name]}" for name in ("endpoint", "account") if name in config)
        return f"{place}{whole}{'?' if options else ''}{options}"

    def place(self) -> "Address":
        """The path as a place of its own: the address of a backend whose paths all begin there, and no path in it.
        Invalid (reason "path") for what cannot be one."""
        if not self.path:
            return self
        path = check_path(self.path.removesuffix("/"))
        kind = self.config["type"]
        if kind == "memory":
            raise Invalid(f"memory:{path}: memory is one place, without a path", reason="path")
        below = {"root": str(Path(self.config["root"]) / path)} if kind == "local" else {"prefix": path}
        return Address({**self.config, **below}, "")


def address(url: str) -> Address:
    """What the URL names. Invalid (reason "config" or "path") if it is none."""
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in _SCHEMES:
        near = difflib.get_close_matches(scheme, _SCHEMES, n=1, cutoff=0.5) if colon else []
        hint = f"did you mean {near[0]}:?" if near else f"there are {', '.join(f'{s}:' for s in _SCHEMES)}"
        hint += "" if colon or not url else f"; a file is file:{url.partition('?')[0]}"
        raise Invalid(f"{url.partition('?')[0]!r}: no such kind of URL; {hint}", reason="config")
    raw, _, query = rest.partition("?")
    read, known = _SCHEMES[scheme]
    options = _options(scheme, query, known)
    try:
        return read(unquote(raw, errors="strict"), options)
    except UnicodeDecodeError:
        raise Invalid(f"{scheme}:{raw}: what %XX stands for is no UTF-8", reason="path") from None


def _options(scheme: str, query: str, known: Sequence[str]) -> Options:
    """What follows the "?". What is refused is told without its value: it may be a secret in a wrong place."""
    options: Options = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in options:
            raise Invalid(f"URLs of {scheme}: the option {name!r} is given twice", reason="config")
        if name not in known:
            hint = f"there are {', '.join(known)}" if known else "there is none"
            message = f"URLs of {scheme}: have no option {name!r}; {hint}; secrets come from the environment"
            raise Invalid(message, reason="config")
        options[name] = value
    return options


def _file(rest: str, options: Options) -> Address:
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        if host not in ("", "localhost") or not slash:
            raise Invalid(f"file://{host}/...: files of this machine are file:///PATH", reason="config")
        rest = slash + rest
    if not rest:
        raise Invalid("file: names no path", reason="config")
    _check_names(rest)
    whole = str(Path.cwd() / rest) + ("/" if rest.rpartition("/")[2] in ("", ".") else "")
    directory, _, last = whole.rpartition("/")
    named = options.get("root", "")
    root = str(Path.cwd() / named) if named else _root_above(directory or "/")
    if whole != root and not whole.startswith(root.rstrip("/") + "/"):
        raise Invalid(f"{whole} is not below the root {root}", reason="path")
    return Address({"type": "local", "root": root}, whole[len(root.rstrip("/")) + 1 :])


def _check_names(rest: str) -> None:
    """What a file system would understand otherwise than a backend does."""
    if ".." in rest.split("/") or any(not c.isprintable() for c in rest):
        raise Invalid(f"{rest!r}: no '..' and no control character is in a path", reason="path")


def _root_above(directory: str) -> str:
    place = Path(directory)
    return str(next((p for p in (place, *place.parents) if (p / RESERVED).is_dir()), place))


def _s3(rest: str, options: Options) -> Address:
    bucket, path = _place("s3", rest)
    config: dict[str, Any] = {"type": "s3", "bucket": bucket}
    config |= {name: options[name] for name in ("endpoint", "region", "ca_file") if name in options}
    claims = ("path_style", "conditional_writes", "conditional_deletes")
    config |= {name: _is_true(name, options[name]) for name in claims if name in options}
    return Address(config | _credentials(options), path)


def _azure(rest: str, options: Options) -> Address:
    container, path = _place("az", rest)
    config: dict[str, Any] = {"type": "azure", "container": container}
    config |= {name: options[name] for name in ("account", "endpoint", "ca_file") if name in options}
    return Address(config | _credentials(options), path)


def _memory(rest: str, options: Options) -> Address:
    return Address({"type": "memory"}, rest)


def _place(scheme: str, rest: str) -> tuple[str, str]:
    """Bucket or container, and path."""
    if not rest.startswith("//"):
        raise Invalid(f"write {scheme}://NAME/PATH", reason="config")
    name, _, path = rest[2:].partition("/")
    if not name:
        raise Invalid(f"{scheme}:{rest} names no {'bucket' if scheme == 's3' else 'container'}", reason="config")
    if "@" in name:
        raise Invalid(f"{scheme}: a URL holds no key or secret: they come from the environment", reason="config")
    return name, path


def _credentials(options: Options) -> dict[str, Any]:
    """Where they come from, if that is said; else the backend looks where the tools of AWS and Azure do."""
    sources: list[dict[str, str]] = [{"from": "profile", "name": options["profile"]}] if "profile" in options else []
    for name, source in (("anonymous", "nobody"), ("instance", "instance"), ("identity", "identity")):
        if name in options and _is_true(name, options[name]):
            sources.append({"from": source})
    if len(sources) > 1:
        raise Invalid("credentials come from one of profile, anonymous, instance, identity", reason="config")
    return {"credentials": sources[0]} if sources else {}


def _is_true(name: str, value: str) -> bool:
    try:
        return {"": True, "true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[value.lower()]
    except KeyError:
        raise Invalid(f"{name}={value}: true or false", reason="config") from None


_S3_OPTIONS: Final = (
    *("endpoint", "region", "path_style", "ca_file", "profile", "anonymous", "instance"),
    *("conditional_writes", "conditional_deletes"),
)

_SCHEMES: Final[dict[str, tuple[Callable[[str, Options], Address], Sequence[str]]]] = {
    "file": (_file, ("root",)),
    "s3": (_s3, _S3_OPTIONS),
    "az": (_azure, ("account", "endpoint", "anonymous", "identity", "ca_file")),
    "memory": (_memory, ()),
}
