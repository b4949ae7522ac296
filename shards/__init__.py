"""Shard sets of avsa360: what `avprep` writes and `avtrain` reads. `ShardSet` reads them;
`decode_sample` decodes what `webdataset` reads."""

import importlib
from typing import TYPE_CHECKING, Any

try:
    import fcntl  # noqa: F401
except ModuleNotFoundError:
    raise ImportError(
        "avsa360 runs on Linux and macOS; on Windows, install it in WSL (there is no fcntl here)"
    ) from None

__version__ = "0.1.0"
"""Version of the whole distribution."""

_IN_READER = ("ShardSet", "decode_sample")
__all__ = ["ShardSet", "__version__", "decode_sample"]

if TYPE_CHECKING:
    from shards.reader import ShardSet, decode_sample
else:

    def __getattr__(name: str) -> Any:
        """Imported when asked for: it brings PyAV and NumPy, which no `--help` should wait for."""
        if name not in _IN_READER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module("shards.reader"), name)


def __dir__() -> list[str]:
    return [*globals(), *_IN_READER]
