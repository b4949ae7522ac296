"""Training and test of the segmentation head."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from avtrain.errors import TrainingError
from avtrain.evals.evaluation import progress_bar
from avtrain.evals.feature_store import check_finite
from avtrain.evals.progress import Progress
from avtrain.evals.segmentation.data import VOID, LabelledBatch, LabelledMoments
from avtrain.evals.segmentation.metrics import TRUE, count_pixels
from avtrain.evals.segmentation.model import HeadBatch, Segmenter
from avtrain.evals.segmentation.protocol import SegmentationProtocol

SAVE_STEPS = 100
_TESTED = ("counts", "tested", "pixels")
"""Keys of the test in a saved state, which the training's precede."""
Batches = list[list[tuple[int, int]]]


def train_head(
    segmenter: Segmenter,
    data: LabelledMoments,
    protocol: SegmentationProtocol,
    workers: int,
    progress: Progress,
    state: dict[str, Any],
) -> list[float]:
    """Train the head, resuming from ``state``, and return the mean loss of every epoch."""
    head, device = segmenter.head.train(), segmenter.networks.device
    optimiser = torch.optim.Adam(
        head.parameters(),
        lr=protocol.learning_rate,
        weight_decay=protocol.weight_decay,
        fused=True,
    )
    rounds = [
        data.train_batches(number, protocol.batch_size, protocol.clips_per_source)
        for number in range(min(protocol.rounds or protocol.epochs, protocol.epochs))
    ]
    steps = [
        (epoch, (epoch % len(rounds), place))
        for epoch in range(protocol.epochs)
        for place in range(len(rounds[epoch % len(rounds)]))
    ]
    trained = {name: value for name, value in state.items() if name not in _TESTED}
    if trained:
        progress.check(
            trained, {"losses": [0.0], "head": head.state_dict(), "optimiser": optimiser}
        )
    losses: list[float] = state.get("losses", [])[: len(steps)]
    if losses:
        head.load_state_dict(state["head"])
        optimiser.load_state_dict(state["optimiser"])
    remaining = steps[len(losses) :]
    first_time = list(dict.fromkeys(which for _, which in remaining))
    places = [rounds[number][place] for number, place in first_time]
    kept: dict[tuple[int, int], HeadBatch | None] = {}
    bar = progress_bar("training", len(steps), "step", len(losses))
    with closing(data.load(places, workers, device)) as batches:
        for epoch, which in remaining:
            number, place = which
            done = epoch + place / len(rounds[number])
            passed = sum(done >= milestone for milestone in protocol.milestones)
            optimiser.param_groups[0]["lr"] = protocol.learning_rate * protocol.gamma**passed
            inputs = kept.get(which)
            if which not in kept:
                batch = next(batches)
                inputs = None if batch is None else segmenter.inputs(batch)
                if protocol.rounds is not None:
                    kept[which] = inputs
            losses.append(_step(segmenter, optimiser, inputs))
            if len(losses) % SAVE_STEPS == 0 or len(losses) == len(steps):
                state |= {
                    "losses": losses,
                    "head": head.state_dict(),
                    "optimiser": optimiser.state_dict(),
                }
                progress.save(state)
            bar.update()
    bar.close()
    epochs = np.array([epoch for epoch, _ in steps])
    known = ~np.isnan(losses)
    if not known.any():
        raise TrainingError(
            f"no label map of {data.clips.shards.where} shows any of the {len(data.classes.ids)} "
            "classes; --classes all takes those that are there"
        )
    sums = np.bincount(epochs[known], np.array(losses)[known])
    return [float(value) for value in sums / np.maximum(np.bincount(epochs[known]), 1)]


def _step(
    segmenter: Segmenter, optimiser: torch.optim.Optimizer, inputs: HeadBatch | None
) -> float:
    """Learn from a batch and return its loss; NaN for a batch without a labelled pixel."""
    if inputs is None or not (inputs.truth != VOID).any():
        return float("nan")
    loss = F.cross_entropy(segmenter.logits(inputs), inputs.truth.long(), ignore_index=VOID)
    check_finite(loss.detach())
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return loss.item()


def count_test_pixels(
    segmenter: Segmenter,
    data: LabelledMoments,
    batches: Batches,
    workers: int,
    progress: Progress,
    state: dict[str, Any],
) -> tuple[NDArray[np.int64], float]:
    """Count pixels (sources, 3, classes), resuming from ``state``; and the share of void."""
    segmenter.head.eval()
    sources = np.array(data.clips.shards.sources)
    names, number = np.unique(sources[data.samples], return_inverse=True)
    source_number = torch.zeros(len(sources), dtype=torch.int64)
    source_number[data.samples] = torch.from_numpy(number)
    classes = len(data.classes.ids)
    counts = torch.zeros(len(names), 3, classes, dtype=torch.int64)
    tested = pixels = 0
    saved = {name: state[name] for name in _TESTED if name in state}
    if saved:
        progress.check(saved, {"counts": counts, "tested": tested, "pixels": pixels})
        counts, tested, pixels = (saved[name] for name in _TESTED)
    bar = progress_bar("testing", len(batches), "step", tested)
    batch: LabelledBatch | None
    with closing(data.load(batches[tested:], workers, segmenter.networks.device)) as loaded:
        for batch in loaded:
            tested += 1
            if batch is not None:
                clip_counts = count_pixels(segmenter.predict(batch), batch.truth, classes).cpu()
                counts.index_add_(0, source_number[batch.clips.index.cpu()], clip_counts)
                pixels += batch.truth.numel()
            if tested % SAVE_STEPS == 0:
                progress.save(state | {"counts": counts, "tested": tested, "pixels": pixels})
            bar.update()
    bar.close()
    labelled = int(counts[:, TRUE].sum())
    if not labelled:
        raise TrainingError(
            f"no label map of {data.clips.shards.where} shows any of the classes that were learned"
        )
    return counts.numpy(), 1 - labelled / max(labelled, pixels)
