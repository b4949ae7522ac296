"""Shard sets of avsa360: what `avprep` writes and `avtrain` reads."""

__version__ = "0.1.0"
"""Version of the whole distribution."""
