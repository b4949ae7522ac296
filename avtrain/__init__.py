"""Learning from shards."""

import os

# Before PyTorch is imported, whose OpenMP threads otherwise spin while they wait for each other: on
# a machine with other work they take the time of the thread that they wait for. Losses are the same
# bit for bit. Whoever has set one of these has decided.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""For all, for GNU's, and for Intel's and LLVM's OpenMP."""
if not PASSIVE.keys() & os.environ.keys():
    os.environ.update(PASSIVE)
