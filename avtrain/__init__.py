"""Learning from shards.

For loops of one's own (docs/python.md): `ClipLoader` reads batches, `load_encoder` makes features
of them by a checkpoint's networks, `Features` makes the input of audio networks of sound.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# Before PyTorch is imported, whose OpenMP threads otherwise spin while they wait for each other: on
# a machine with other work they take the time of the thread that they wait for. A short spin costs
# a quiet machine nothing, where none at all costs small networks a third of their speed
# (docs/benchmarks.md). Losses are the same bit for bit. Whoever has set one of these has decided.
WAITING = {"GOMP_SPINCOUNT": "2000"}
"""For GNU's OpenMP, which PyTorch's packages for Linux hold."""
if not {"OMP_WAIT_POLICY", *WAITING} & os.environ.keys():
    os.environ.update(WAITING)

_HOMES = {
    "ClipLoader": "avtrain.data.clip_loader",
    "Encoder": "avtrain.encoder",
    "FeatureConfig": "avtrain.networks.features",
    "Features": "avtrain.networks.features",
    "ShardSets": "avtrain.data.shard_sets",
    "load_encoder": "avtrain.encoder",
}
__all__ = ["ClipLoader", "Encoder", "FeatureConfig", "Features", "ShardSets", "load_encoder"]

if TYPE_CHECKING:
    from avtrain.data.clip_loader import ClipLoader
    from avtrain.data.shard_sets import ShardSets
    from avtrain.encoder import Encoder, load_encoder
    from avtrain.networks.features import FeatureConfig, Features
else:

    def __getattr__(name: str) -> Any:
        """Imported when asked for: they bring PyTorch, which no `--help` should wait for."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
