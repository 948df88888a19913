"""What every program needs that runs schedules."""

import gc
import logging
import os
import sys
import warnings
from collections.abc import Sequence

from ostraka.testing.simulation.schedule import Geometry


def with_fixed_hashes(program: Sequence[str]) -> None:
    """Start this program (what its interpreter is given before the arguments) anew, unless the order of sets of bytes
    is the same in every process already: a seed has to reproduce a run."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *program, *sys.argv[1:]])


def quiet() -> None:
    """Nothing is said of processes that die in the midst of something; what is loaded by now is no garbage."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None
    gc.collect()
    gc.freeze()


def parse_geometry(text: str) -> Geometry:
    """ "4+2/6": k, m, and on how many disks; "4+2/6~": disks come and go."""
    ec, _, disks = text.removesuffix("~").partition("/")
    k, m = (int(number) for number in ec.split("+"))
    return Geometry(k, m, int(disks or k + m), text.endswith("~"))


def parse_seeds(text: str) -> range:
    """ "0-1000": from the first to before the last; "7": one."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or int(first) + 1))
