"""Shard sets of avsa360: what `avprep` writes and `avtrain` reads."""

try:
    import fcntl  # noqa: F401
except ModuleNotFoundError:
    raise ImportError(
        "avsa360 runs on Linux and macOS; on Windows, install it in WSL (there is no fcntl here)"
    ) from None

__version__ = "0.1.0"
"""Version of the whole distribution."""
