"""``python -m ostraka`` is ``ostraka``."""

from ostraka.cli import main

main()
