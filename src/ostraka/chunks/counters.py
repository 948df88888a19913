"""What chunks count: declared once for the board that all processes share, added to where things happen."""

from ostraka.chunks.types import Codec
from ostraka.metrics import Board, Metric

_HELP = {
    "placed_bytes": "plaintext bytes that were to be kept in chunks and packs, those that were there already included",
    "chunks": "chunks written",
    "chunk_bytes": "plaintext bytes of chunks written",
    "chunk_stored_bytes": "stored bytes of chunks written",
    "dedup_hits": "chunks that were there already",
    "dedup_saved_bytes": "plaintext bytes that were not written because the chunk was there",
    "sealed_bytes": "plaintext bytes of chunks and slots that were stored encrypted",
    "packs": "packs written",
    "pack_slots": "small bodies written into packs",
    "pack_bytes": "stored bytes of packs",
    "packs_compacted": "packs rewritten without their dead slots",
    "chunks_collected": "chunks deleted because nothing referred to them",
    "packs_collected": "packs deleted because all of their slots were dead",
    "chunk_damage": "reads of chunks and slots that found damage which no shard could repair",
}

_COMPRESSED = {
    "compressed_in_bytes": "plaintext bytes of chunks and slots that were stored compressed",
    "compressed_out_bytes": "stored bytes of the same",
}
_CODECS: dict[Codec, str] = {codec: codec.name.lower() for codec in Codec if codec != Codec.RAW}

METRICS = (
    *(Metric(f"ostraka_{name}_total", "counter", text) for name, text in _HELP.items()),
    *(
        Metric(f"ostraka_{name}_total", "counter", text, {"codec": tuple(_CODECS.values())})
        for name, text in _COMPRESSED.items()
    ),
)


class Counters:
    """This process's counts; the sum over all is what ``/-/metrics`` shows."""

    def __init__(self, board: Board | None = None) -> None:
        self._board = board or Board(METRICS, 1)
        self._cells = {name: self._board.cell(f"ostraka_{name}_total") for name in _HELP}
        self._compressed = {
            codec: [self._board.cell(f"ostraka_{name}_total", label) for name in _COMPRESSED]
            for codec, label in _CODECS.items()
        }

    def add(self, name: str, amount: int = 1) -> None:
        self._board.add(self._cells[name], amount)

    def compressed(self, codec: Codec, size: int, stored: int) -> None:
        """So many bytes became so many."""
        before, after = self._compressed[codec]
        self._board.add(before, size)
        self._board.add(after, stored)

    def totals(self) -> dict[str, int]:
        """The sums over all processes, and over all codecs."""
        found = {name: int(self._board.total(f"ostraka_{name}_total")) for name in _HELP}
        for name in _COMPRESSED:
            found[name] = int(sum(self._board.total(f"ostraka_{name}_total", label) for label in _CODECS.values()))
        return found
