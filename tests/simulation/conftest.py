"""Tests of the simulation share `simulation_runs` and `failing_history`, and the histories of objects."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "objects"))
