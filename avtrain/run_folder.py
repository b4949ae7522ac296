"""Names of the files in the folder of a pretraining run (``OUT``)."""

CHECKPOINT = "checkpoint.pt"
"""Newest state; ``--resume`` continues from it, and evaluations read its networks."""
KEPT_CHECKPOINTS = "checkpoints"
"""Folder of the older states that ``--keep-last`` and ``--keep-every`` keep."""
CONFIG = "config.json"
"""Settings."""
LOG = "log.jsonl"
"""One line per step."""
CURVES = "curves.png"
"""Loss and accuracies over the steps."""
TENSORBOARD = "tensorboard"
"""Folder that ``--tensorboard`` writes to."""
TRACE = "trace.json"
"""What ``--profile`` measured."""
FIRST_STAGE = "avc"
"""Folder of a curriculum's first stage, itself the folder of a run."""


def faults(rank: int) -> str:
    """Clips that the process ``rank`` could not read, one line per clip."""
    return f"faults-{rank}.jsonl" if rank else "faults.jsonl"
