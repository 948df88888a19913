"""Ostraka: durable object storage that ``pip install`` brings."""

__version__ = "0.1.0.dev0"
