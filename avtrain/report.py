"""Results of evaluations, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avtrain.errors import TrainingError

Result = dict[str, Any]


def read_results(runs: Sequence[Path]) -> list[Result]:
    """The results (``*-bin.json``) that evaluations left in these folders.

    Raises TrainingError for a folder without one, or with a damaged one.
    """
    results: list[Result] = []
    for run in runs:
        paths = sorted(run.glob("*-bin.json"))
        if not paths:
            raise TrainingError(f"{run} holds no result; run `avtrain eval … --out {run}` first")
        for path in paths:
            try:
                result = json.loads(path.read_bytes())
                _cells(result)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise TrainingError(f"{path} is no result of `avtrain eval` ({error!r})") from None
            results.append(result)
    return results


def as_table(results: Sequence[Result]) -> str:
    """A table in Markdown, one line for each result."""
    lines = [_cells(result) for result in results]
    widths = {name: max(len(name), *(len(line[name]) for line in lines)) for name in lines[0]}
    rows = [
        list(widths),
        ["-" * width for width in widths.values()],
        *(list(line.values()) for line in lines),
    ]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(row, widths.values(), strict=True))
        + " |"
        for row in rows
    )


def _cells(result: Result) -> dict[str, str]:
    interval = "-"
    if result["interval_95"] is not None:
        interval = " to ".join(f"{100 * value:.1f}" for value in result["interval_95"])
    network = result["checkpoint"]
    pretraining = f"{network['task']}, {network['steps']} steps" if "task" in network else "none"
    return {
        "task": result["task"],
        "pretraining": pretraining,
        "features": "log-mel + intensity" if result["intensity"] else "log-mel",
        "accuracy %": f"{100 * result['accuracy']:.1f}",
        "95 % interval": interval,
        "chance %": f"{100 * result['chance']:.0f}",
        "test clips": str(result["test_clips"]),
        "sources": str(result["test_sources"]),
    }
