"""The state: an ordered, transactional key-value store that holds all metadata.

What callers use is here; `types` tells the contract. Two engines keep it: `MemoryState` (nothing durable, for tests)
and the embedded one. Embedded, on one host (docs/decisions/state.md):

- the truth is on each of m+1 disks: a synced, checksummed log, and snapshots of all rows (docs/format/state-log.md,
  state-snapshot.md);
- LMDB is an index derived from it: one per store, shared by all worker processes, never synced, rebuilt when in doubt
  (docs/format/state-index.md).

The owner (one process per store) calls `open_owner` once: it recovers, and gives a state. Workers call `open_shared`.
"""

from ostraka.state.checkpoint import Checkpointed
from ostraka.state.embedded import EmbeddedState
from ostraka.state.engine import OnCopyFailed
from ostraka.state.memory import MemoryState
from ostraka.state.opening import open_owner, open_shared
from ostraka.state.recover import Recovery
from ostraka.state.report import IndexReport
from ostraka.state.salvage import salvage_from_index
from ostraka.state.tables import rows_under
from ostraka.state.truth import Copy, DamageReport
from ostraka.state.types import (
    Absent,
    Add,
    Committed,
    Delete,
    Ensure,
    Equals,
    Mutation,
    Operation,
    Outcome,
    Precondition,
    Present,
    Put,
    Rejected,
    State,
    counter,
    counter_value,
    key_sequence,
    prefix_end,
    stamped_key,
    stamped_value,
    value_sequence,
)
from ostraka.state.verify import CopyReport, verify_copies

__all__ = [
    "Absent",
    "Add",
    "Checkpointed",
    "Committed",
    "Copy",
    "CopyReport",
    "DamageReport",
    "Delete",
    "EmbeddedState",
    "Ensure",
    "Equals",
    "IndexReport",
    "MemoryState",
    "Mutation",
    "OnCopyFailed",
    "Operation",
    "Outcome",
    "Precondition",
    "Present",
    "Put",
    "Recovery",
    "Rejected",
    "State",
    "counter",
    "counter_value",
    "key_sequence",
    "open_owner",
    "open_shared",
    "prefix_end",
    "rows_under",
    "salvage_from_index",
    "stamped_key",
    "stamped_value",
    "value_sequence",
    "verify_copies",
]
