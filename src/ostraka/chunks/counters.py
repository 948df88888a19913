"""What chunks count: declared once for the board that all processes share, added to where things happen."""

from ostraka.metrics import Board, Metric

_HELP = {
    "chunks": "chunks written",
    "chunk_bytes": "plaintext bytes of chunks written",
    "dedup_hits": "chunks that were there already",
    "dedup_saved_bytes": "plaintext bytes that were not written because the chunk was there",
    "compressed_in_bytes": "plaintext bytes of chunks and slots that were stored compressed",
    "compressed_out_bytes": "stored bytes of the same",
    "sealed_bytes": "plaintext bytes of chunks and slots that were stored encrypted",
    "packs": "packs written",
    "pack_slots": "small bodies written into packs",
    "pack_bytes": "stored bytes of packs",
    "packs_compacted": "packs rewritten without their dead slots",
    "chunks_collected": "chunks deleted because nothing referred to them",
    "packs_collected": "packs deleted because all of their slots were dead",
    "chunk_damage": "reads of chunks and slots that found damage which no shard could repair",
}

METRICS = tuple(Metric(f"ostraka_{name}_total", "counter", text) for name, text in _HELP.items())


class Counters:
    """This process's counts; the sum over all is what ``/-/metrics`` shows."""

    def __init__(self, board: Board | None = None) -> None:
        self._board = board or Board(METRICS, 1)
        self._cells = {name: self._board.cell(f"ostraka_{name}_total") for name in _HELP}

    def add(self, name: str, amount: int = 1) -> None:
        self._board.add(self._cells[name], amount)

    def totals(self) -> dict[str, int]:
        """The sums over all processes."""
        return {name: int(self._board.total(f"ostraka_{name}_total")) for name in _HELP}
