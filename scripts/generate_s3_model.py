"""Write src/ostraka/s3/_model.py: the facts of botocore's S3 service model that a server needs.

    python scripts/generate_s3_model.py            # rewrite the file
    python scripts/generate_s3_model.py --check    # exit 1 if it is not what the installed botocore gives

Only facts are taken (names, locations, types, statuses), never documentation. The notation is explained at the
head of the generated file; src/ostraka/s3/model.py reads it.
"""

import argparse
import gzip
import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import botocore

TARGET = Path(__file__).resolve().parent.parent / "src" / "ostraka" / "s3" / "_model.py"

HEAD = '''\
"""Facts of the S3 service model. Written by scripts/generate_s3_model.py; do not edit.

OPERATIONS  name: (method, scope, sub-resource markers, required query members, header selector, status,
            input, output, errors, checksum algorithm member, checksum required, deprecated). Scope is service,
            bucket, key or other. A marker with "=" selects only with that value. Words are separated by spaces.
STRUCTS     name: "[payload=MEMBER] [ns=PREFIX=URI] [name=WIRE] MEMBER=TYPE[@LOCATION:WIRE][#WIRE][FLAGS] ...".
            TYPE is a lower-case scalar (string, integer, long, boolean, blob, timestamp, timestamp.FORMAT) or the
            name of an enumeration, structure, list or map. LOCATION: h header, H header prefix (a map), q query,
            u path, s status; without one the member is in the XML body. FLAGS: ! required, * flattened list,
            ^ XML attribute, ~ streamed bytes.
LISTS       name: (item type, item's element name or "" for "member", flattened).
"""
# ruff: noqa: E501
# fmt: off
'''


def load() -> dict[str, Any]:
    """The newest service-2 document of the installed botocore."""
    folder = sorted((Path(botocore.__file__).parent / "data" / "s3").iterdir())[-1]
    packed = folder / "service-2.json.gz"
    raw = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / "service-2.json").read_bytes()
    document: dict[str, Any] = json.loads(raw)
    return document


class Model:
    """Walks the document and renders its facts."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.shapes: dict[str, Any] = document["shapes"]
        self.operations: dict[str, Any] = document["operations"]

    def type_of(self, name: str) -> str:
        """How a shape is written where it is used."""
        shape = self.shapes[name]
        kind: str = shape["type"]
        if kind in ("structure", "list", "map") or "enum" in shape:
            return name
        if kind == "timestamp" and "timestampFormat" in shape:
            return f"timestamp.{shape['timestampFormat']}"
        return kind

    def member(self, name: str, member: dict[str, Any], required: bool) -> str:
        text = f"{name}={self.type_of(member['shape'])}"
        wire = member.get("locationName", "")
        location = member.get("location", "")
        if location:
            letter = {"header": "h", "headers": "H", "querystring": "q", "uri": "u", "statusCode": "s"}[location]
            text += f"@{letter}:{wire.lower() if letter in 'hH' else wire}"
        elif wire and wire != name:
            text += f"#{wire}"
        flattened = member.get("flattened") or self.shapes[member["shape"]].get("flattened")
        flags = [("!", required), ("*", flattened), ("^", member.get("xmlAttribute")), ("~", member.get("streaming"))]
        return text + "".join(mark for mark, on in flags if on)

    def structure(self, shape: dict[str, Any]) -> str:
        words = []
        if "payload" in shape:
            words.append(f"payload={shape['payload']}")
        if "xmlNamespace" in shape:
            words.append(f"ns={shape['xmlNamespace'].get('prefix', '')}={shape['xmlNamespace']['uri']}")
        if "locationName" in shape:
            words.append(f"name={shape['locationName']}")
        required = set(shape.get("required", ()))
        words += [self.member(name, m, name in required) for name, m in shape["members"].items()]
        return " ".join(words)

    def operation(self, op: dict[str, Any]) -> tuple[object, ...]:
        path, _, query = op["http"]["requestUri"].partition("?")
        scopes = {"/": "service", "/{Bucket}": "bucket", "/{Bucket}/{Key+}": "key"}
        markers = [n + (f"={v}" if v else "") for n, v in parse_qsl(query, keep_blank_values=True)]
        given = self.shapes[op["input"]["shape"]] if "input" in op else {"members": {}}
        needed = [given["members"][n] for n in given.get("required", ())]
        headers = [m["locationName"] for m in needed if m.get("location") == "header"]
        queries = [m["locationName"] for m in needed if m.get("location") == "querystring"]
        checksum = op.get("httpChecksum", {})
        return (
            op["http"]["method"],
            scopes.get(path, "other"),
            " ".join(markers),
            " ".join(queries),
            "" if markers else " ".join(h.lower() for h in headers),
            op["http"].get("responseCode", 200),
            op.get("input", {}).get("shape", ""),
            op.get("output", {}).get("shape", ""),
            " ".join(e["shape"] for e in op.get("errors", ())),
            checksum.get("requestAlgorithmMember", ""),
            bool(checksum.get("requestChecksumRequired")),
            bool(op.get("deprecated")),
        )

    def documented_codes(self) -> dict[str, int]:
        """The public table of error codes, which the model carries in the description of Error's Code."""
        text = re.sub(r"<[^>]+>", "|", self.shapes["Error"]["members"]["Code"]["documentation"])
        words = [w for w in (w.strip() for w in text.split("|")) if w]
        codes: dict[str, int] = {}
        name = ""
        for before, word in itertools.pairwise(words):
            if before == "Code:" and re.fullmatch(r"[A-Z][A-Za-z]+", word):
                name = word
            elif before in ("HTTP Status Code:", "Code:") and name and (m := re.match(r"(\d{3}) ", word)):
                codes.setdefault(name, int(m[1]))
        return dict(sorted(codes.items()))

    def render(self) -> str:
        by_type: dict[str, dict[str, Any]] = {"structure": {}, "list": {}, "map": {}, "enum": {}}
        for name, shape in sorted(self.shapes.items()):
            kind = "enum" if "enum" in shape else shape["type"]
            if kind in by_type:
                by_type[kind][name] = shape
        errors = {n: s["error"]["httpStatusCode"] for n, s in by_type["structure"].items() if "error" in s}
        algorithms = next(
            op["httpChecksum"]["responseAlgorithms"]
            for _, op in sorted(self.operations.items())
            if "responseAlgorithms" in op.get("httpChecksum", {})
        )
        tables: list[tuple[str, str, dict[str, object]]] = [
            ("OPERATIONS", "dict[str, tuple[str, str, str, str, str, int, str, str, str, str, bool, bool]]",
             {n: self.operation(op) for n, op in sorted(self.operations.items())}),
            ("STRUCTS", "dict[str, str]", {n: self.structure(s) for n, s in by_type["structure"].items()}),
            ("LISTS", "dict[str, tuple[str, str, bool]]", {
                n: (self.type_of(s["member"]["shape"]), s["member"].get("locationName", ""), bool(s.get("flattened")))
                for n, s in by_type["list"].items()}),
            ("ENUMS", "dict[str, str]", {n: " ".join(s["enum"]) for n, s in by_type["enum"].items()}),
            ("MAPS", "dict[str, tuple[str, str]]", {
                n: (self.type_of(s["key"]["shape"]), self.type_of(s["value"]["shape"]))
                for n, s in by_type["map"].items()}),
            ("ERROR_SHAPES", "dict[str, int]", dict(errors)),
            ("DOCUMENTED_CODES", "dict[str, int]", dict(self.documented_codes())),
        ]  # fmt: skip
        out = [HEAD, f"BOTOCORE = {json.dumps(botocore.__version__)}\n"]
        out.append(f"RESPONSE_ALGORITHMS = {tuple(algorithms)!r}\n".replace("'", '"'))
        for title, annotation, rows in tables:
            lines = [f"    {json.dumps(n)}: {literal(v)},\n" for n, v in rows.items()]
            out.append(f"{title}: {annotation} = {{\n{''.join(lines)}}}\n")
        return "\n".join(out)


def literal(value: object) -> str:
    """A Python literal with double quotes."""
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        return f"({', '.join(literal(v) for v in value)})"
    return repr(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true")
    text = Model(load()).render()
    if parser.parse_args().check:
        return 0 if TARGET.read_text() == text else 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
