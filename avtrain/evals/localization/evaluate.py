"""Where do sounds come from? A linear probe on the frozen feature of the sound at a view.

The probe gives one Cartesian vector for each class in the frame of the view: where the class
sounds, of length 1 if it does and 0 if not (ACCDOA; Shimada et al., ICASSP 2021). It is the one
with the least mean squared error (and a little ridge), solved for: there is nothing to tune. At the
test the vectors of a clip's views are turned back to the recording's frame and averaged. Truth is
the ``events`` of the set; the truth of a window is the mean direction of each source over the
moments of the window at which it sounds.

One vector cannot say two directions: a class of which several sources sound at once in a window
asks nothing of the probe there, and is left out of the test (the result counts how many were).
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

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
from avtrain.errors import TrainingError
from avtrain.evals.binary.evaluate import EvalOptions
from avtrain.evals.bootstrap import mean_metric, median_metric
from avtrain.evals.feature_store import BATCH_SIZE, FrozenFeatures, views_read
from avtrain.evals.frozen import load_networks
from avtrain.evals.localization.figure import plot_directions
from avtrain.evals.localization.truth import Windows, classes_of, windows_of
from avtrain.evals.progress import Progress
from avtrain.evals.results import LEARNED_FROM, Metric, Result
from avtrain.runtime.device import default_workers, pick_device
from shards.geometry import angle_between_deg
from shards.reader import ShardSet

TASK = "localization"
CHANCE_DEG = 90.0
"""Mean and median error of a guess that is uniform over the sphere, wherever the source is."""

RIDGE = 1e-3
"""Of the variance of a feature."""
NEAR_DEG = 20.0
_CHANCE_PAIRS = 200_000


@dataclass(frozen=True)
class Probe:
    """Standardises features with ``mean`` and ``std`` (D,); ``weights`` (C, D + 1, 3), the bias
    last."""

    mean: Tensor
    std: Tensor
    weights: Tensor

    def directions(self, windows: Windows) -> Tensor:
        """Vectors (N, C, 3) in the recording's frame, averaged over the views."""
        inputs = _inputs(windows.features, self.mean, self.std)
        vectors = torch.einsum("nvp,cpi->nvci", inputs, self.weights)
        inverse = windows.rotations.double().transpose(-1, -2)
        averaged: Tensor = torch.einsum("nvij,nvcj->nvci", inverse, vectors).mean(dim=1)
        return averaged


class LeastSquares:
    """Sums over windows, of which the best probe follows. Features are standardised as those of
    the first windows are."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"rounds": 0}

    def add(self, windows: Windows) -> None:
        """Another round of windows, all views of each.

        Raises TrainingError for features that are no numbers.
        """
        if not windows.features.isfinite().all():
            raise TrainingError(
                "the network's features are not all finite: its training diverged; take an earlier "
                "checkpoint, or train it again with a lower --lr"
            )
        state = self.state
        classes, dim = windows.sources.shape[1], windows.features.shape[-1]
        if not state["rounds"]:
            std, mean = torch.std_mean(windows.features.double().flatten(0, 1), dim=0, correction=0)
            state |= {
                "mean": mean,
                "std": std + 1e-5,
                "inputs": torch.zeros(classes, dim + 1, dim + 1, dtype=torch.float64),
                "wanted": torch.zeros(classes, dim + 1, 3, dtype=torch.float64),
            }
        inputs = _inputs(windows.features, state["mean"], state["std"])
        wanted = torch.einsum(
            "nvij,ncj->nvci", windows.rotations.double(), windows.vectors.double()
        )
        for kind in range(classes):
            clear = windows.sources[:, kind] < 2
            rows = inputs[clear].flatten(0, 1)
            state["inputs"][kind] += rows.T @ rows
            state["wanted"][kind] += rows.T @ wanted[clear, :, kind].flatten(0, 1)
        state["rounds"] += 1

    def solve(self) -> Probe:
        state = self.state
        count = state["inputs"][:, -1, -1].clamp(min=1)
        ridge = RIDGE * count[:, None, None] * torch.eye(state["inputs"].shape[-1])
        weights = torch.linalg.solve(state["inputs"] + ridge, state["wanted"])
        return Probe(state["mean"], state["std"], weights)


def _inputs(features: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    standard = (features.double() - mean) / std
    return torch.cat([standard, torch.ones_like(standard[..., :1])], dim=-1)


@dataclass(frozen=True)
class Found:
    """M sources of the truth, each with what was estimated, in the recording's frame."""

    truth: NDArray[np.float64]
    """(M, 3), unit vectors."""
    estimate: NDArray[np.float64]
    """(M, 3), of any length."""
    kind: NDArray[np.int64]
    """(M,), the place of the source's class among the probe's."""
    index: NDArray[np.int64]
    """(M,), which sample of the set."""

    @property
    def error_deg(self) -> NDArray[np.float64]:
        """Great-circle errors (M,). An estimate that points nowhere is as wrong as can be."""
        length = np.linalg.norm(self.estimate, axis=-1)
        return np.where(length > 0, angle_between_deg(self.truth, self.estimate), 180.0)


def found_of(windows: Windows, vectors: Tensor) -> tuple[Found, Found]:
    """Estimates of vectors (N, C, 3): of every class with exactly one source, by its own vector;
    and of windows with exactly one source of all, by the sum of the vectors of all classes."""
    truth, estimate = windows.vectors.double().numpy(), vectors.double().numpy()
    window, kind = np.nonzero(windows.sources.numpy() == 1)
    index = windows.index.numpy()
    by_class = Found(truth[window, kind], estimate[window, kind], kind, index[window])
    alone = (windows.sources.sum(dim=1) + windows.others == 1).numpy()[window]
    window, kind = window[alone], kind[alone]
    lone = Found(truth[window, kind], estimate[window].sum(axis=1), kind, index[window])
    return by_class, lone


def evaluate(root: str, config: Config, options: EvalOptions, rounds: int) -> Result:
    """Fit the probe on the one split, test it on the other, draw a picture, write and return the
    result.

    ``config`` describes the networks, see `load_networks`. The probe is fitted to ``rounds``
    passes over the training split, each with windows, views and augmentation of its own; those
    that an interrupted evaluation made are not made again. Raises TrainingError where the set does
    not say where its sounds come from.
    """
    train, test = ShardSet(root, options.train_split), ShardSet(root, options.test_split)
    device = pick_device(options.device)
    workers = default_workers(device) if options.workers is None else options.workers
    views = views_read(options.views, train, options.keep_features)
    clip = replace(config.clip, views=views, moments=1)
    if options.keep_features is None:
        # Nobody looks at the pictures: the fewer are read the better.
        clip = replace(clip, frames=1)
    classes = classes_of(train)
    classes_of(test)
    networks = load_networks(options.checkpoint, config, train, options.seed, device, workers)
    fit, unread = LeastSquares(), (LeftOut.of(train), LeftOut.of(test))
    progress = Progress.of(
        options.out,
        TASK,
        options.checkpoint,
        {
            "networks": asdict(networks.described),
            "views": (options.views, views),
            "rounds": rounds,
            "windows": options.windows,
            "seed": options.seed,
            "data": train.manifest.sha256,
            "split": options.train_split,
            "test": options.test_split,
        },
        unread,
    )
    if (written := progress.result()) is not None:
        return written
    fit.state = progress.load() or fit.state
    left = range(fit.state["rounds"], rounds)
    bar = tqdm(
        desc=TASK,
        unit="clip",
        total=len(train) * len(left) + len(test) * options.windows,
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
    )

    def read(shards: ShardSet, turns: range, windows: int | None) -> Windows:
        augment = config.augment if windows is None else NO_AUGMENTATION
        clips = Clips(shards, clip, config.sound, augment, options.seed, windows)
        plan = Plan(shards, options.seed, BATCH_SIZE)
        features = FrozenFeatures(
            networks,
            clips,
            plan,
            workers,
            unread[windows is not None],
            options.views,
            options.keep_features,
        )
        parts = []
        for turn in turns:
            for batch in features.batches(turn, ("audio",)):
                of_sound = batch.features["audio"]
                parts.append(windows_of(clips, turn, batch.index, of_sound, classes))
                bar.update(len(batch.index))
        return Windows.join(parts)

    for number in left:
        fit.add(read(train, range(number, number + 1), None))
        progress.save(fit.state)
    windows = read(test, range(options.windows), options.windows)
    windows = windows.where(unread[1].keeps(windows.index.numpy()))
    bar.close()
    by_class, lone = found_of(windows, fit.solve().directions(windows))
    if not len(by_class.index):
        raise TrainingError(
            f"in no window of split {test.split!r} of {test.root} a single source of a class of "
            f"split {train.split!r} sounds; there is nothing to find"
        )
    sources = np.array(test.sources)
    tested = sources[unread[1].rest]
    result = Result(
        task=TASK,
        network=networks.described,
        metrics={
            **_metrics("", by_class, sources),
            **(_metrics("one source, ", lone, sources) if len(lone.index) else {}),
        },
        views=options.views,
        seed=options.seed,
        test_clips=len(tested),
        test_sources=len(set(tested)),
        data=test.manifest.sha256,
        test={
            "train_set": train.manifest.sha256,
            "train_split": options.train_split,
            "test_split": options.test_split,
            "rounds": rounds,
            "windows": options.windows,
        },
        left_out=sentences(*unread),
        details={
            "probe": "linear, least squares",
            "train_clips": len(train),
            LEARNED_FROM: len(set(train.sources) & set(test.sources)),
            "classes": list(classes),
            "sources": len(by_class.index),
            "left_out_of_one_class": int(windows.sources[windows.sources > 1].sum()),
            "left_out_unlearned": int(windows.others.sum()),
            "one_source_windows": len(lone.index),
            "median_error_deg_by_class": {
                str(name): round(float(np.median(by_class.error_deg[by_class.kind == kind])), 2)
                for kind, name in enumerate(classes)
                if (by_class.kind == kind).any()
            },
        },
    )
    result.write(options.out)
    picture = options.out / f"{result.name}.png"
    plot_directions(by_class.truth, by_class.estimate, by_class.error_deg, result, picture)
    progress.finish()
    return result


def chance_near(truth: NDArray[np.float64]) -> float:
    """How often a source (M, 3) is within `NEAR_DEG` of one of them at a random azimuth: so good is
    a guess that knows how high sounds usually are (near the horizon), and nothing of the clip."""
    rng = np.random.default_rng(0)
    one, other = truth[rng.integers(len(truth), size=(2, _CHANCE_PAIRS))]
    azimuth = rng.uniform(-np.pi, np.pi, _CHANCE_PAIRS)
    across = np.linalg.norm(other[:, :2], axis=-1)
    turned = np.stack([across * np.cos(azimuth), across * np.sin(azimuth), other[:, 2]], axis=-1)
    return float((angle_between_deg(one, turned) <= NEAR_DEG).mean())


def _metrics(what: str, found: Found, sources: NDArray[np.str_]) -> dict[str, Metric]:
    error_deg, whose = found.error_deg, sources[found.index]
    return {
        f"{what}mean error": mean_metric(error_deg, whose, CHANCE_DEG, unit="°", better="lower"),
        f"{what}median error": median_metric(error_deg, whose, CHANCE_DEG, unit="°"),
        f"{what}within {NEAR_DEG:g}°": mean_metric(
            error_deg <= NEAR_DEG, whose, chance_near(found.truth)
        ),
    }
