"""Decisions of the classifier, also apart for views that show what sounds and views that do not."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avtrain.data.clips import Clips
from avtrain.evals.truth import views_with_source


@dataclass(frozen=True)
class Decisions:
    """M decisions about clips with V views."""

    correct: NDArray[np.bool_]
    """(M,), whether the views together are right."""
    by_view: NDArray[np.bool_]
    """(M, V), whether each view alone is."""
    index: NDArray[np.int64]
    """(M,), the clip."""
    window: NDArray[np.int64]
    """(M,), the fixed window of the clip."""

    def select(self, mask: NDArray[np.bool_]) -> Decisions:
        """The decisions where ``mask`` (M,) is true."""
        return Decisions(*(getattr(self, field.name)[mask] for field in fields(self)))


def accuracies_by_truth(decisions: Decisions, clips: Clips) -> dict[str, Any]:
    """Accuracies of single views that show a sounding source and of those that do not, and of the
    views together by how many of them show one; with the number of decisions of each.

    A view without a source has only what the transformers carry over from the others. Clips without
    ``events`` are left out; empty if all are. Raises TrainingError for malformed events.
    """
    places = list(zip(decisions.window.tolist(), decisions.index.tolist(), strict=True))
    known, shows = views_with_source(clips, places, decisions.by_view.shape[1])
    if not known.any():
        return {}
    decisions, shows = decisions.select(known), shows[known]
    count = shows.sum(axis=1)
    return {
        "views_with_source": _accuracy(decisions.by_view[shows]),
        "views_without_source": _accuracy(decisions.by_view[~shows]),
        "by_views_with_source": {
            str(number): _accuracy(decisions.correct[count == number])
            for number in np.unique(count).tolist()
        },
    }


def _accuracy(correct: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "accuracy": float(correct.mean()) if len(correct) else None,
        "decisions": len(correct),
    }
