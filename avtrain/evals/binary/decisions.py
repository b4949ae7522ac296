"""Decisions of the classifier, also apart for views that show what sounds and views that do not."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avtrain.data.clips import Clips
from avtrain.data.draws import Draw
from avtrain.evals.truth import rotations_to_views, sources_in
from shards.schema import SampleInfo


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
    shown: dict[tuple[int, int], NDArray[np.bool_]] = {}
    places = list(zip(decisions.index.tolist(), decisions.window.tolist(), strict=True))
    for index, window in dict.fromkeys(places):
        info, draw = clips.shards.info(index), clips.draw(window, index)
        if info.events is not None:
            start_s = clips.starts_s(index, draw)[0]
            duration_s = clips.sound.duration_s
            views = decisions.by_view.shape[1]
            shown[index, window] = shows_source(info, draw, views, start_s, duration_s)
    known = np.array([place in shown for place in places], dtype=bool)
    if not known.any():
        return {}
    decisions = decisions.select(known)
    shows = np.stack([shown[place] for place in places if place in shown])  # (M, V)
    count = shows.sum(axis=1)
    return {
        "views_with_source": _accuracy(decisions.by_view[shows]),
        "views_without_source": _accuracy(decisions.by_view[~shows]),
        "by_views_with_source": {
            str(number): _accuracy(decisions.correct[count == number])
            for number in np.unique(count).tolist()
        },
    }


def shows_source(
    info: SampleInfo, draw: Draw, views: int, start_s: float, duration_s: float
) -> NDArray[np.bool_]:
    """Whether each of the first ``views`` of a draw shows the middle of a source that sounds in the
    window, by the fields of view of a flat (gnomonic) crop."""
    directions = [
        source.direction for source in sources_in(info, start_s, duration_s) if source.visible
    ]
    if not directions:
        return np.zeros(views, dtype=bool)
    seen = np.array(directions) @ rotations_to_views(info, draw, views).transpose(0, 2, 1)
    places = [info.views[view] for view in draw.views[:views]]
    widths = np.array([[view.hfov_deg, view.vfov_deg] for view in places])
    half = np.tan(np.radians(widths / 2))[:, None]  # (V, 1, 2)
    front = seen[..., 0]
    inside = (np.abs(seen[..., 1:]) <= half * front[..., None]).all(axis=-1)
    return np.asarray((inside & (front > 0)).any(axis=-1))


def _accuracy(correct: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "accuracy": float(correct.mean()) if len(correct) else None,
        "decisions": len(correct),
    }
