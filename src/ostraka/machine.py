"""Where Ostraka runs: Linux on x86-64 and arm64. Elsewhere a door says so in a sentence.

Called by every door before it imports what is only there on Linux; `import ostraka` itself works anywhere, and the
package installs anywhere (its markers in pyproject.toml leave out what cannot), so that the sentence can be said.
"""

import os
import sys

from ostraka.errors import NotSupported

PROCESSORS = frozenset(("x86_64", "aarch64"))


def check() -> None:
    """Raise NotSupported unless this machine can keep the promise."""
    here = sys.platform
    if here == "linux":
        processor = os.uname().machine
        wide = sys.maxsize > 2**32  # a 32-bit Python cannot map the index of the state
        if processor in PROCESSORS and wide:
            return
        here = f"Linux on {processor}" + ("" if wide else " with a 32-bit Python")
    raise NotSupported(
        f"Ostraka runs on Linux, on x86-64 and arm64, and not on {here}: take a Linux machine or container",
        reason="platform",
    )
