"""Lets this suite's modules import their neighbours: with importmode=importlib pytest does not."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
