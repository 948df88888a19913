"""Which jobs there are, in the order in which they have their turns."""

from ostraka.jobs.checkpoint import Checkpoint
from ostraka.jobs.collect import Collect
from ostraka.jobs.compact import Compact
from ostraka.jobs.ground import Job
from ostraka.jobs.heal import Heal
from ostraka.jobs.rebalance import Rebalance
from ostraka.jobs.rewrap import Rewrap
from ostraka.jobs.scrub import Scrub
from ostraka.jobs.tier import Tier

JOBS: tuple[type[Job], ...] = (
    Collect,
    Checkpoint,
    Heal,
    Rebalance,
    Compact,
    Scrub,
    Tier,
    Rewrap,
)
NAMES = tuple(job.name for job in JOBS)
