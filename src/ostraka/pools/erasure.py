"""Reed-Solomon over GF(256): k shards of data, m of parity, any k of which give back the rest.

ISA-L does the work on given buffers, without a copy and with the interpreter's lock released: the copy inside
pyeclib's wheel, else the system's, else a slow one here that needs nothing. All three give the same bytes, and
docs/decisions/erasure.md fixes them: polynomial 0x11d, parity row r of a Cauchy matrix with 1 / ((k + r) xor j) for
data shard j; with k = 1 every shard is a plain copy.

Knows nothing of disks, cells or stripes.
"""

import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

from ostraka.errors import Invalid
from ostraka.host import Buffer
from ostraka.pools._isal_abi import ffi

K_MAX: Final = 16
M_MAX: Final = 8
_POLYNOMIAL: Final = 0x11D
_CHUNK: Final = 1 << 30  # the C function counts bytes in an int

Matrix = tuple[tuple[int, ...], ...]


def _field() -> tuple[tuple[int, ...], tuple[int, ...]]:
    exponents, logarithms = [0] * 510, [0] * 256
    value = 1
    for power in range(255):
        exponents[power] = exponents[power + 255] = value
        logarithms[value] = power
        value = value << 1 ^ (_POLYNOMIAL if value & 0x80 else 0)
    return tuple(exponents), tuple(logarithms)


_EXP, _LOG = _field()


def multiply(a: int, b: int) -> int:
    return _EXP[_LOG[a] + _LOG[b]] if a and b else 0


def inverse(a: int) -> int:
    assert a, "zero has no inverse"
    return _EXP[255 - _LOG[a]]


def generator(k: int, m: int) -> Matrix:
    """The k+m rows that turn k data bytes into k+m shard bytes; the first k are the identity."""
    rows = [tuple(int(i == j) for j in range(k)) for i in range(k)]
    if k == 1:
        rows += [(1,)] * m
    else:
        rows += [tuple(inverse((k + r) ^ j) for j in range(k)) for r in range(m)]
    return tuple(rows)


def invert(matrix: Matrix) -> Matrix:
    """The inverse of a square matrix over the field. Any k rows of `generator` have one."""
    size = len(matrix)
    rows = [list(row) + [int(i == j) for j in range(size)] for i, row in enumerate(matrix)]
    for column in range(size):
        pivot = next(r for r in range(column, size) if rows[r][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        scale = inverse(rows[column][column])
        rows[column] = [multiply(scale, value) for value in rows[column]]
        for r in range(size):
            factor = rows[r][column]
            if r != column and factor:
                rows[r] = [v ^ multiply(factor, p) for v, p in zip(rows[r], rows[column], strict=True)]
    return tuple(tuple(row[size:]) for row in rows)


class Kernel(Protocol):
    """out[r] = sum over j of matrix[r][j] * sources[j], byte by byte."""

    name: str

    def prepare(self, matrix: Matrix) -> Any: ...

    def apply(self, prepared: Any, sources: Sequence[Buffer], out: Sequence[memoryview], size: int) -> None: ...


class IsaL:
    """ISA-L's ec_encode_data. ``prepared`` is its table of the matrix."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._library = ffi.dlopen(path)  # functions do not keep it open
        self._init, self._encode = self._library.ec_init_tables, self._library.ec_encode_data

    def prepare(self, matrix: Matrix) -> Any:
        rows, k = len(matrix), len(matrix[0])
        tables = ffi.new("unsigned char[]", 32 * k * rows)
        self._init(k, rows, ffi.new("unsigned char[]", bytes(c for row in matrix for c in row)), tables)
        return tables, k, rows

    def apply(self, prepared: Any, sources: Sequence[Buffer], out: Sequence[memoryview], size: int) -> None:
        tables, k, rows = prepared
        held = [ffi.from_buffer("unsigned char[]", source) for source in sources]
        made = [ffi.from_buffer("unsigned char[]", o, require_writable=True) for o in out]
        for start in range(0, size, _CHUNK):
            self._encode(
                min(_CHUNK, size - start),
                k,
                rows,
                tables,
                ffi.new("unsigned char *[]", [pointer + start for pointer in held]),
                ffi.new("unsigned char *[]", [pointer + start for pointer in made]),
            )


class Plain:
    """Without any library: byte translation and xor of long integers. Slow, holds the interpreter's lock, correct."""

    name = "python"

    def prepare(self, matrix: Matrix) -> Any:
        return tuple(tuple(_translation(c) for c in row) for row in matrix)

    def apply(self, prepared: Any, sources: Sequence[Buffer], out: Sequence[memoryview], size: int) -> None:
        data = [bytes(memoryview(source)[:size]) for source in sources]
        for row, target in zip(prepared, out, strict=True):
            total = 0
            for table, source in zip(row, data, strict=True):
                total ^= int.from_bytes(source.translate(table), "little")
            target[:size] = total.to_bytes(size, "little")


@lru_cache(maxsize=256)
def _translation(coefficient: int) -> bytes:
    return bytes(multiply(coefficient, value) for value in range(256))


def libraries() -> Iterator[str]:
    """Where ISA-L may be: inside pyeclib's wheel (under a name that changes), then where Debian has it."""
    for scheme in ("platlib", "purelib"):
        folder = Path(sysconfig.get_path(scheme)) / "pyeclib.libs"
        yield from (str(path) for path in sorted(folder.glob("libisal*.so*")))
    try:
        import pyeclib
    except ImportError:
        pass
    else:  # installed somewhere else than the interpreter's own folder
        folder = Path(pyeclib.__file__).parent.parent / "pyeclib.libs"
        yield from (str(path) for path in sorted(folder.glob("libisal*.so*")))
    yield "libisal.so.2"


@lru_cache(maxsize=1)
def kernel() -> Kernel:
    """The fastest that works here: it has to give the right bytes for a small case before it is believed."""
    for path in libraries():
        try:
            candidate = IsaL(path)
        except (OSError, AttributeError):  # not there, or not what it is called
            continue
        if _right(candidate):
            return candidate
    return Plain()


def _right(candidate: Kernel) -> bool:
    sources = [bytes((i * 7 + j * 31) % 256 for i in range(96)) for j in range(3)]
    parity = [bytearray(96), bytearray(96)]
    expected = [bytearray(96), bytearray(96)]
    matrix = generator(3, 2)[3:]
    candidate.apply(candidate.prepare(matrix), sources, [memoryview(p) for p in parity], 96)
    plain = Plain()
    plain.apply(plain.prepare(matrix), sources, [memoryview(p) for p in expected], 96)
    return parity == expected


class Codec:
    """One geometry. Buffers are of equal size; parity and results are written in place. Any thread may call."""

    def __init__(self, k: int, m: int, kernel: Kernel) -> None:
        self.k, self.m = k, m
        self._kernel = kernel
        self._generator = generator(k, m)
        self._parity = kernel.prepare(self._generator[k:]) if m and k > 1 else None
        self._recovery = lru_cache(maxsize=256)(self._prepare_recovery)

    def encode(self, data: Sequence[Buffer], parity: Sequence[memoryview]) -> None:
        """Fill the m parity buffers from the k data buffers."""
        assert (len(data), len(parity)) == (self.k, self.m), "k buffers in, m out"
        if not self.m:
            return
        size = memoryview(data[0]).nbytes
        if self._parity is None:
            for target in parity:
                target[:] = data[0]
        else:
            self._kernel.apply(self._parity, data, parity, size)

    def reconstruct(self, present: Mapping[int, Buffer], wanted: Sequence[int], out: Sequence[memoryview]) -> None:
        """Fill ``out`` with the shards ``wanted`` (data or parity) from at least k others: index to bytes."""
        assert len(present) >= self.k, "k shards are needed to make another"
        chosen = tuple(sorted(present)[: self.k])
        sources = [present[index] for index in chosen]
        if self.k == 1:
            for target in out:
                target[:] = sources[0]
            return
        size = memoryview(sources[0]).nbytes
        self._kernel.apply(self._recovery(chosen, tuple(wanted)), sources, out, size)

    def _prepare_recovery(self, chosen: tuple[int, ...], wanted: tuple[int, ...]) -> Any:
        decode = invert(tuple(self._generator[index] for index in chosen))
        rows = []
        for index in wanted:
            row = self._generator[index]
            rows.append(
                tuple(_sum(multiply(row[j], decode[j][column]) for j in range(self.k)) for column in range(self.k))
            )
        return self._kernel.prepare(tuple(rows))


def _sum(values: Iterator[int]) -> int:
    total = 0
    for value in values:
        total ^= value
    return total


@lru_cache(maxsize=64)
def codec(k: int, m: int) -> Codec:
    """The codec of a geometry; raises Invalid outside of 1..16 data and 0..8 parity shards."""
    if not (1 <= k <= K_MAX and 0 <= m <= M_MAX):
        raise Invalid(f"erasure coding {k}+{m}: data shards go from 1 to {K_MAX}, parity from 0 to {M_MAX}")
    return Codec(k, m, kernel())
