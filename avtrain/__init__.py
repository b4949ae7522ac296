"""Learning from shards."""

import os

# Before PyTorch is imported, whose OpenMP threads otherwise spin while they wait for each other: on
# a machine with other work they take the time of the thread that they wait for. A short spin costs
# a quiet machine nothing, where none at all costs small networks a third of their speed
# (docs/benchmarks.md). Losses are the same bit for bit. Whoever has set one of these has decided.
WAITING = {"GOMP_SPINCOUNT": "2000"}
"""For GNU's OpenMP, which PyTorch's packages for Linux hold."""
if not {"OMP_WAIT_POLICY", *WAITING} & os.environ.keys():
    os.environ.update(WAITING)
