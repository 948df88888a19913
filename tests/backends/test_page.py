"""The program at the head of docs/backends.md runs as it stands there."""

import subprocess
import sys
import textwrap
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/backends.md"


def test_the_first_program_of_the_page_runs(tmp_path: Path) -> None:
    lines = PAGE.read_text().splitlines()
    begin = lines.index("    import asyncio")
    end = lines.index("    asyncio.run(main())")
    program = textwrap.dedent("\n".join(lines[begin : end + 1])).replace("/data/photos", str(tmp_path / "photos"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    path, size, _, nothing = done.stdout.split()
    assert (path, size, nothing) == ("2026/amphora.jpg", "3", "None")
    assert (tmp_path / "photos/2026/amphora.jpg").read_bytes() == b"..."
