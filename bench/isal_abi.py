"""Writes src/ostraka/pools/_isal_abi.py: cffi's parser runs here, once, and not in every process that serves."""

import subprocess
import sys
import tempfile
from pathlib import Path

import cffi

TARGET = Path(__file__).parent.parent / "src/ostraka/pools/_isal_abi.py"
DECLARATIONS = """
void ec_init_tables(int k, int rows, unsigned char *a, unsigned char *gftbls);
void ec_encode_data(int len, int k, int rows, unsigned char *gftbls, unsigned char **data, unsigned char **coding);
"""
HEAD = '''"""The two functions of ISA-L that are called, as cffi wants them. Made by bench/isal_abi.py; do not edit."""

'''


def generate() -> str:
    ffi = cffi.FFI()
    ffi.cdef(DECLARATIONS)
    ffi.set_source("ostraka.pools._isal_abi", None)
    with tempfile.TemporaryDirectory() as directory:
        raw = Path(directory) / "raw.py"
        ffi.emit_python_code(str(raw))
        raw.write_text(HEAD + raw.read_text().replace("# auto-generated file\n", ""))
        subprocess.run([sys.executable, "-m", "ruff", "format", "-q", "--line-length", "118", str(raw)], check=True)
        return raw.read_text()


if __name__ == "__main__":
    TARGET.write_text(generate())
