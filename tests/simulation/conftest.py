"""Tests of the simulation share `simulation_runs`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
