"""Shard sets on the command line, each with a weight if wanted: ``A:0.7 B:0.3``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_WEIGHTED = re.compile(r"(.+):([-+.\deEa-z]{1,20})")
_HOST = re.compile(r"\w+://[^/:]*")


def parse_set(word: str) -> tuple[str, float | None]:
    """Folder or URL, and weight. A name that exists is a folder, whatever it ends in; the number
    after the host of a URL is its port."""
    found = _WEIGHTED.fullmatch(word)
    if found is None or _HOST.fullmatch(found[1]) or Path(word).exists():
        return word, None
    try:
        return found[1], float(found[2])
    except ValueError:
        return word, None


def parse_sets(words: Sequence[str]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Folders or URLs, and their weights, which add up to 1; no weights if none has one.

    Raises TrainingError where only some have one, or a single set.
    """
    from avtrain.errors import TrainingError

    found = [parse_set(word) for word in words]
    roots = tuple(root for root, _ in found)
    weights = [weight for _, weight in found if weight is not None]
    if not weights:
        return roots, ()
    if len(found) == 1:
        raise TrainingError(f"{words[0]}: weights divide the clips of several sets: name another")
    if len(weights) < len(found):
        lacking = next(root for root, weight in found if weight is None)
        raise TrainingError(f"{lacking} has no weight, but others have: write {lacking}:NUMBER")
    for word, weight in zip(words, weights, strict=True):
        if not 0 < weight < 1e9:
            raise TrainingError(
                f"{word}: a weight is a number above 0; leave out a set of weight 0"
            )
    return roots, tuple(weight / sum(weights) for weight in weights)
