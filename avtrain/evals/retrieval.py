"""Which view does a sound belong to? Views are ranked by the networks' own similarities.

Nothing is trained. As in pretraining, the audio that the video of a view predicts is compared with
audio, and the video that its audio predicts with video: embeddings by the networks' heads, behind
the transformers where these were trained. Networks pretrained without predictions across views
(AVC, AVTS) compare the plain embeddings of both, as their training did. Candidates are the views of
the clip, or those of a gallery of clips in the same one of W fixed windows; only the very view is
right. Random networks are the baseline.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avtrain.data.plan import Plan
from avtrain.evals.bootstrap import mean_metric, median_metric
from avtrain.evals.evaluation import EvaluationOptions, open_evaluation
from avtrain.evals.feature_store import BATCH_SIZE, FrozenFeatures, WindowOptions, embed, join
from avtrain.evals.frozen import Networks
from avtrain.evals.results import Metric, Result
from avtrain.evals.truth import views_with_source
from avtrain.networks.models import Embeddings

TASK = "retrieval"
SOUND_OF_A_PICTURE = "sound of a picture"
DIRECTIONS = (SOUND_OF_A_PICTURE, "picture of a sound")
"""Names in results: audio for the video of a view, and video for its audio."""
OTHER_VIEWS = "source in other views, recall@1"
_RECALLS = (1, 5, 10)


@dataclass(frozen=True, kw_only=True)
class RetrievalOptions(WindowOptions):
    """Galleries hold ``gallery`` clips, or all of the split if there are fewer."""

    gallery: int = 100


def evaluate_retrieval(common: EvaluationOptions, options: RetrievalOptions) -> Result:
    """Rank the views of every test clip, write and return the result."""
    run = open_evaluation(TASK, common, fits=False)
    test, config = run.test, common.config
    views = options.views_to_read(test)
    gallery = min(options.gallery, len(test))
    networks = run.load_networks()
    progress = run.progress(
        networks.described,
        {
            "views": (options.views, views),
            "windows": options.windows,
            "gallery": gallery,
            "data": (run.train.sha256, common.train_split),
            "test": (test.sha256, common.test_split),
        },
    )
    if (written := progress.finished_result()) is not None:
        return written

    clips = run.test_clips(replace(config.clip, views=views, moments=1), options.windows)
    plan = Plan(test, common.seed, BATCH_SIZE)
    features = FrozenFeatures(networks, clips, plan, run.workers, run.unreadable_test, options)
    ranks: dict[str, list[Tensor]] = {"within": [], "gallery": []}
    if (state := progress.load()) is not None:
        example = torch.zeros(len(DIRECTIONS), len(test), options.views, dtype=torch.int64)
        progress.check(state, {name: [example] for name in ranks})
        whole = min(options.windows, *map(len, state.values()))
        ranks = {name: state[name][:whole] for name in ranks}
    done = len(ranks["within"])
    bar = run.bar(len(test) * options.windows, initial=len(test) * done)
    for window in range(done, options.windows):
        parts = []
        with closing(features.batches(window, ("video", "audio"))) as batches:
            for batch in batches:
                parts.append((embed(networks, batch), batch.index))
                bar.update(len(batch.index))
        embeddings, index = join(parts)
        size, seed = min(gallery, len(index)), common.seed * 10_007 + window
        among = partial(ranks_in_gallery, clips=size, seed=seed)
        for place, rank in (("within", ranks_within), ("gallery", among)):
            ranks_of_all = torch.zeros(len(DIRECTIONS), len(test), options.views, dtype=torch.int64)
            pairs = queries_and_candidates(embeddings)
            ranks_of_all[:, index] = torch.stack([rank(*pair) for pair in pairs])
            ranks[place].append(ranks_of_all)
        progress.save(ranks)
    bar.close()

    readable = run.unreadable_test.readable_clips
    within, galleries = (
        torch.stack(ranks[place]).numpy()[:, :, readable] for place in ("within", "gallery")
    )
    sources = np.array(test.sources)[readable]
    places = [(window, int(index)) for window in range(options.windows) for index in readable]
    known, shows = views_with_source(clips, places, options.views)
    shape = (options.windows, len(readable))
    truth = Truth(known.reshape(shape), shows.reshape(*shape, options.views))
    tested = Ranks(within, galleries, sources, min(gallery, len(readable)))
    result = run.result(
        networks.described,
        tested.metrics() | truth.metrics(within, sources),
        options.views,
        test={"windows": options.windows, "gallery_clips": gallery},
        details={
            "gallery_candidates": tested.gallery_clips * options.views,
            "predictions": _describe_predictions(networks),
            **{
                name: {key: asdict(metric) for key, metric in tested.one(number).metrics().items()}
                for number, name in enumerate(DIRECTIONS)
            },
            **truth.details(within),
        },
    )
    return run.finish(progress, result)


def _describe_predictions(networks: Networks) -> str:
    if networks.is_energy:
        return "none: the map of the energy against that of motion"
    return "across views" if networks.config.across_views else "plain embeddings"


def queries_and_candidates(found: Embeddings) -> tuple[tuple[Tensor, Tensor], ...]:
    """A pair for each of `DIRECTIONS`, all (N, V, E)."""
    return (found.predicted_audio, found.audio), (found.predicted_video, found.video)


def ranks_within(queries: Tensor, candidates: Tensor) -> Tensor:
    """Ranks (N, V), from 1, of each query's own view among the V of its clip; both (N, V, E)."""
    return _ranks(queries @ candidates.transpose(1, 2))


def ranks_in_gallery(queries: Tensor, candidates: Tensor, clips: int, seed: int) -> Tensor:
    """Ranks (N, V), from 1, of each query's own view among all views of ``clips`` clips: its own
    clip and those that follow it in one random order, in which the first follows the last."""
    count, views, _ = queries.shape
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    ranks = torch.empty((count, views), dtype=torch.int64)
    for place, clip in enumerate(order.tolist()):
        gallery = order[(place + torch.arange(clips)) % count]
        ranks[clip] = _ranks(queries[clip] @ candidates[gallery].flatten(0, 1).T)
    return ranks


def _ranks(scores: Tensor) -> Tensor:
    """Rank (..., V) of candidate v for query v, from scores (..., V, candidates). As in training, a
    tie counts against the right candidate, and so does NaN."""
    right = scores.diagonal(dim1=-2, dim2=-1)
    return (~(scores < right[..., None])).sum(dim=-1)


@dataclass(frozen=True)
class Ranks:
    """Ranks (windows, directions, clips, views) of the right views, and the clips' ``sources``."""

    within: NDArray[np.int64]
    gallery: NDArray[np.int64]
    sources: NDArray[np.str_]
    gallery_clips: int

    def one(self, direction: int) -> Ranks:
        """The ranks of one direction."""
        one = slice(direction, direction + 1)
        return replace(self, within=self.within[:, one], gallery=self.gallery[:, one])

    def metrics(self) -> dict[str, Metric]:
        """Recalls and median ranks over all windows, directions, clips and views."""
        views = self.within.shape[-1]
        sources = np.broadcast_to(self.sources[:, None], self.within.shape).ravel()
        within = _rank_metrics(self.within.ravel(), sources, views, _RECALLS[:1])
        gallery = _rank_metrics(self.gallery.ravel(), sources, self.gallery_clips * views, _RECALLS)
        # A single view is always the first among itself.
        metrics = {f"within clip, {name}": metric for name, metric in within if views > 1}
        return metrics | {f"gallery, {name}": metric for name, metric in gallery}


@dataclass(frozen=True)
class Truth:
    """Which clips of a window have ``events`` (windows, clips), and which of their views show a
    sounding source (windows, clips, views)."""

    known: NDArray[np.bool_]
    shows: NDArray[np.bool_]

    @property
    def kinds(self) -> dict[str, NDArray[np.bool_]]:
        """The views that show a source, those that show none while another view of the clip does,
        and those of clips that show none, each (windows, clips, views)."""
        known = self.known[..., None]
        somewhere = self.shows.any(axis=-1, keepdims=True)
        return {
            "source_in_view": known & self.shows,
            "source_in_other_views": known & ~self.shows & somewhere,
            "source_in_no_view": known & ~somewhere & np.ones_like(self.shows),
        }

    def metrics(self, within: NDArray[np.int64], sources: NDArray[np.str_]) -> dict[str, Metric]:
        """The share of views found from the video of all views, among those that show no source
        while another one does: what transformers carry over from other views shows here alone.
        Empty without such views; ``within`` as in `Ranks`."""
        views = self.kinds["source_in_other_views"]
        if not views.any() or within.shape[-1] < 2:
            return {}
        ranks = within[:, DIRECTIONS.index(SOUND_OF_A_PICTURE)]
        by_view = np.broadcast_to(sources[:, None], ranks.shape)
        found = mean_metric(ranks[views] == 1, by_view[views], 1 / within.shape[-1])
        return {OTHER_VIEWS: found}

    def details(self, within: NDArray[np.int64]) -> dict[str, Any]:
        """The share of right views within the clip, by direction, for each of ``kinds``. Empty
        without events, and for single views."""
        if not self.known.any() or within.shape[-1] < 2:
            return {}
        right = within == 1
        found: dict[str, Any] = {}
        for kind, views in self.kinds.items():
            found[kind] = {"views": int(views.sum())} | {
                name: float(right[:, number][views].mean()) if views.any() else None
                for number, name in enumerate(DIRECTIONS)
            }
        return {"right_view_by_truth": found}


def _rank_metrics(
    ranks: NDArray[np.int64],
    sources: NDArray[np.str_],
    candidates: int,
    recalls: tuple[int, ...],
) -> Iterator[tuple[str, Metric]]:
    for rank in recalls:
        yield f"recall@{rank}", mean_metric(ranks <= rank, sources, min(1.0, rank / candidates))
    yield "median rank", median_metric(ranks, sources, (candidates + 1) / 2, unit="")
