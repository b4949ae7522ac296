"""Which view does a sound belong to? Views are ranked by the networks' own similarities.

Nothing is trained. As in pretraining, the sound that a view's picture predicts is compared with the
sounds themselves, and the picture that a view's sound predicts with the pictures: embeddings by
their heads, behind the transformers where these were trained. What was pretrained without
predictions across views (AVC, AVTS) compares the plain embeddings of both, as its training did.
Candidates are the views of the clip (is it told which of them?), or of a gallery of clips at the
same one of W fixed windows; right is the very view alone. Random networks are the baseline.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from avtrain.config import Config
from avtrain.data.clips import Clips
from avtrain.data.draws import NO_AUGMENTATION
from avtrain.data.plan import Plan
from avtrain.data.unreadable import LeftOut, sentences
from avtrain.evals.binary.evaluate import EvalOptions
from avtrain.evals.bootstrap import mean_metric, median_metric
from avtrain.evals.feature_store import BATCH_SIZE, FrozenBatch, FrozenFeatures, views_read
from avtrain.evals.frozen import Networks, load_networks
from avtrain.evals.progress import Progress
from avtrain.evals.results import Metric, Result
from avtrain.networks.models import Embeddings
from avtrain.runtime.device import default_workers, pick_device
from shards.reader import ShardSet

TASK = "retrieval"
DIRECTIONS = ("sound of a picture", "picture of a sound")
_RECALLS = (1, 5, 10)


def embed(networks: Networks, batch: FrozenBatch) -> Embeddings:
    """On the CPU."""
    features = batch.features
    found = networks.embeddings(features["video"], features["audio"], batch.directions)
    parts = (found.predicted_audio, found.audio, found.predicted_video, found.video)
    return Embeddings(*(part.cpu() for part in parts))


def directions_of(found: Embeddings) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Queries and candidates in the order of `DIRECTIONS`."""
    return (found.predicted_audio, found.audio), (found.predicted_video, found.video)


def ranks_within(queries: Tensor, candidates: Tensor) -> Tensor:
    """Ranks (N, V), from 1, of each query's own view among the V of its clip; both (N, V, E)."""
    return _ranks(queries @ candidates.transpose(1, 2))


def ranks_in_gallery(queries: Tensor, candidates: Tensor, clips: int, seed: int) -> Tensor:
    """Ranks (N, V), from 1, of each query's own view among all views of ``clips`` clips: its own
    and those after it in one random order of all, the first ones after the last."""
    count, views, _ = queries.shape
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    ranks = torch.empty((count, views), dtype=torch.int64)
    for place, clip in enumerate(order.tolist()):
        gallery = order[(place + torch.arange(clips)) % count]
        ranks[clip] = _ranks(queries[clip] @ candidates[gallery].flatten(0, 1).T)
    return ranks


def _ranks(scores: Tensor) -> Tensor:
    """Of candidate v for query v: scores (..., V, candidates) to (..., V). A tie counts against
    it, as in training, and so does what is no number."""
    right = scores.diagonal(dim1=-2, dim2=-1)
    return (~(scores < right[..., None])).sum(dim=-1)


def evaluate(root: str, config: Config, options: EvalOptions, gallery: int) -> Result:
    """Rank every test clip's views, write and return the result.

    ``config`` describes the networks, see `load_networks`. Galleries hold ``gallery`` clips, or
    all where there are fewer. What an interrupted evaluation has ranked is not ranked again.
    """
    train, test = ShardSet(root, options.train_split), ShardSet(root, options.test_split)
    device = pick_device(options.device)
    workers = default_workers(device) if options.workers is None else options.workers
    views = views_read(options.views, test, options.keep_features)
    clip = replace(config.clip, views=views, moments=1)
    clips = Clips(test, clip, config.sound, NO_AUGMENTATION, options.seed, options.windows)
    plan = Plan(test, options.seed, BATCH_SIZE)
    asked = gallery = min(gallery, len(test))
    networks = load_networks(options.checkpoint, config, train, options.seed, device, workers)
    unread = LeftOut.of(test)
    features = FrozenFeatures(
        networks, clips, plan, workers, unread, options.views, options.keep_features
    )

    def embedded(window: int) -> tuple[Embeddings, Tensor]:
        parts, order = [], []
        for batch in features.batches(window, ("video", "audio")):
            parts.append(embed(networks, batch))
            order.append(batch.index)
            bar.update(len(batch.index))
        return _joined(parts, torch.cat(order))

    progress = Progress.of(
        options.out,
        TASK,
        options.checkpoint,
        {
            "networks": asdict(networks.described),
            "views": (options.views, views),
            "windows": options.windows,
            "gallery": gallery,
            "seed": options.seed,
            "data": (train.manifest.sha256, options.train_split),
            "test": (test.manifest.sha256, options.test_split),
        },
        [unread],
    )
    if (written := progress.result()) is not None:
        return written
    state = progress.load() or {"within": [], "gallery": []}
    bar = tqdm(
        desc=TASK,
        unit="clip",
        total=len(test) * options.windows,
        initial=len(test) * len(state["within"]),
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
    )
    for window in range(len(state["within"]), options.windows):
        embeddings, index = embedded(window)
        both = directions_of(embeddings)
        gallery, seed = min(gallery, len(index)), options.seed * 10_007 + window
        found = {
            "within": [ranks_within(*pair) for pair in both],
            "gallery": [ranks_in_gallery(*pair, gallery, seed) for pair in both],
        }
        for name, ranks_of_window in found.items():
            of_all = torch.zeros((len(both), len(test), options.views), dtype=torch.int64)
            of_all[:, index] = torch.stack(ranks_of_window)
            state[name].append(of_all)
        progress.save(state)
    bar.close()

    rest = unread.rest
    gallery = min(gallery, len(rest))
    ranks = {name: torch.stack(state[name]).numpy()[:, :, rest] for name in ("within", "gallery")}
    sources = np.array(test.sources)[rest]
    result = Result(
        task=TASK,
        network=networks.described,
        metrics=_metrics(ranks, sources, options.views, gallery),
        views=options.views,
        seed=options.seed,
        test_clips=len(rest),
        test_sources=len(set(sources)),
        data=test.manifest.sha256,
        test={
            "test_split": options.test_split,
            "windows": options.windows,
            "gallery_clips": asked,
        },
        left_out=sentences(unread),
        details={
            "gallery_candidates": gallery * options.views,
            "predictions": "across views" if config.across_views else "plain embeddings",
            **{
                direction: {
                    name: asdict(metric)
                    for name, metric in _metrics(
                        {name: of[:, [number]] for name, of in ranks.items()},
                        sources,
                        options.views,
                        gallery,
                    ).items()
                }
                for number, direction in enumerate(DIRECTIONS)
            },
        },
    )
    result.write(options.out)
    progress.finish()
    return result


def _joined(parts: list[Embeddings], order: Tensor) -> tuple[Embeddings, Tensor]:
    """In the order of the set's samples, and which samples they are of."""
    names = ("predicted_audio", "audio", "predicted_video", "video")
    place = order.argsort()
    joined = (torch.cat([getattr(part, name) for part in parts])[place] for name in names)
    return Embeddings(*joined), order[place]


def _metrics(
    ranks: dict[str, NDArray[np.int64]], sources: NDArray[np.str_], views: int, gallery: int
) -> dict[str, Metric]:
    """Of ranks (windows, directions, clips, views), all of them together."""
    shape = ranks["within"].shape
    whose = np.broadcast_to(sources[:, None], shape).ravel()
    within = _of_ranks(ranks["within"].ravel(), whose, views, _RECALLS[:1])
    among = _of_ranks(ranks["gallery"].ravel(), whose, gallery * views, _RECALLS)
    # A single view is found among itself by anybody.
    named = {f"within clip, {name}": metric for name, metric in within if views > 1}
    return named | {f"gallery, {name}": metric for name, metric in among}


def _of_ranks(
    ranks: NDArray[np.int64],
    sources: NDArray[np.str_],
    candidates: int,
    recalls: tuple[int, ...],
) -> Iterator[tuple[str, Metric]]:
    for most in recalls:
        yield f"recall@{most}", mean_metric(ranks <= most, sources, min(1.0, most / candidates))
    yield "median rank", median_metric(ranks, sources, (candidates + 1) / 2, unit="")
