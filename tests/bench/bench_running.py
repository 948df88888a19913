"""A bench is run as anybody would run it, with tiny numbers."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def bench(script: str, directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bench" / script), "--tiny", "--dir", str(directory), *words]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OSTRAKA_")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=110)
