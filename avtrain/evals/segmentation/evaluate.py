"""Semantic segmentation: what frozen features tell of each pixel, with and without sound.

Morgado, Li and Vasconcelos (NeurIPS 2020), section 4: a feature pyramid on the frozen stages of
the video network, whose deepest maps stand beside features of the view's sound, and of what the
transformers make of all views' pictures and sounds. The pictures are those around the moment of
the label map. What is reported counts the pixels of the whole test set.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tqdm import tqdm

from avtrain.config import Config
from avtrain.data.clips import Clips
from avtrain.data.draws import NO_AUGMENTATION
from avtrain.data.unreadable import sentences
from avtrain.errors import TrainingError
from avtrain.evals.frozen import load_networks
from avtrain.evals.progress import Progress
from avtrain.evals.results import LEARNED_FROM, Result
from avtrain.evals.segmentation.figure import Example, plot_overlays
from avtrain.evals.segmentation.labels import VOID, YT360, LabelledMoments, classes_of, spread
from avtrain.evals.segmentation.metrics import TRUE, count, scores
from avtrain.evals.segmentation.segmenter import Condition, HeadBatch, Protocol, Segmenter
from avtrain.runtime.device import default_workers, pick_device
from shards.reader import ShardSet

SAVE_STEPS = 100
_Step = TypeVar("_Step")
EXAMPLES = 12


@dataclass(frozen=True)
class SegmentationOptions:
    """``checkpoint`` None evaluates randomly initialised networks. ``test_root`` is the set that is
    tested on, None the same; ``maps`` of every test clip are, in all views."""

    out: Path
    checkpoint: Path | None
    condition: Condition = "none"
    views: int = 4
    maps: int = 5
    test_root: str | None = None
    train_split: str = "train"
    test_split: str = "test"
    seed: int = 0
    device: str = "auto"
    workers: int | None = None


def evaluate(
    root: Path | str, config: Config, protocol: Protocol, options: SegmentationOptions
) -> Result:
    """Train the head on the one split, test it on the other, write and return the result, and
    draw some of the test's pictures.

    ``config`` describes the networks; they are those of ``options.checkpoint``, which it comes
    from, or random ones. What was interrupted is gone on with, to the same result.
    """
    context = options.condition == "audio+context"
    if context and options.checkpoint is not None and not config.trains_transformers:
        raise TrainingError(
            f"{options.checkpoint} has no transformers that were trained, which give the context; "
            "use --condition audio, or pretrain with --transformer"
        )
    train = ShardSet(root, options.train_split)
    test = ShardSet(options.test_root or root, options.test_split)
    device = pick_device(options.device)
    workers = default_workers(device) if options.workers is None else options.workers
    classes = YT360 if protocol.classes == "yt360" else classes_of(train)
    clip = replace(config.clip, views=options.views, moments=1)
    trained_on = Clips(train, clip, config.sound, config.augment, options.seed)
    learning = LabelledMoments(trained_on, classes, testing=False)
    tested_on = Clips(test, replace(clip, views=1), config.sound, NO_AUGMENTATION, options.seed)
    testing = LabelledMoments(tested_on, classes, testing=True)

    if options.checkpoint is None:
        config = replace(config, clip=clip)
    networks = load_networks(options.checkpoint, config, train, options.seed, device, workers)
    described = replace(networks.described, transformer=networks.transformer and context)
    torch.manual_seed(options.seed)
    segmenter = Segmenter(networks, options.condition, options.views, classes, protocol)
    progress = Progress.of(
        options.out,
        f"segmentation-{options.condition}",
        options.checkpoint,
        {
            "networks": asdict(described),
            "protocol": asdict(protocol),
            "classes": classes.ids,
            "views": options.views,
            "maps": options.maps,
            "seed": options.seed,
            "data": (train.manifest.sha256, options.train_split),
            "test": (test.manifest.sha256, options.test_split),
        },
        [learning.left_out, testing.left_out],
    )
    if (written := progress.result()) is not None:
        return written
    state = progress.load() or {}
    losses = _train(segmenter, learning, protocol, workers, progress, state)
    by_source, void = _test(
        segmenter, testing, options.maps, protocol.batch_size, workers, progress, state
    )
    metrics, details = scores(by_source, classes)
    tested = testing.samples[testing.left_out.keeps(testing.samples)]
    result = Result(
        task=f"segmentation-{options.condition}",
        network=described,
        metrics=metrics,
        views=options.views,
        seed=options.seed,
        test_clips=len(tested),
        test_sources=len({test.sources[sample] for sample in tested}),
        data=test.manifest.sha256,
        test={
            "train_set": train.manifest.sha256,
            "train_split": options.train_split,
            "test_split": options.test_split,
            "maps_of_a_clip": options.maps,
            "protocol": asdict(protocol),
            "labels": list(classes.ids),
        },
        details=details
        | {
            "void_share": void,
            "train_clips": len(learning.samples),
            LEARNED_FROM: len(set(train.sources) & set(test.sources)),
            "loss": losses,
        },
        left_out=sentences(learning.left_out, testing.left_out),
    )
    picture = options.out / f"{result.name}.png"
    plot_overlays(_examples(segmenter, testing, options.maps), classes, result, picture)
    result.write(options.out)
    progress.finish()
    return result


def _train(
    segmenter: Segmenter,
    data: LabelledMoments,
    protocol: Protocol,
    workers: int,
    progress: Progress,
    state: dict[str, Any],
) -> list[float]:
    """Train the head from where ``state`` is, and return the mean loss of every epoch."""
    head, device = segmenter.head.train(), segmenter.networks.device
    optimiser = torch.optim.Adam(
        head.parameters(),
        lr=protocol.learning_rate,
        weight_decay=protocol.weight_decay,
        fused=True,
    )
    rounds = [
        data.epoch(number, protocol.batch_size, protocol.clips_per_source)
        for number in range(min(protocol.rounds or protocol.epochs, protocol.epochs))
    ]
    steps = [
        (epoch, (epoch % len(rounds), place))
        for epoch in range(protocol.epochs)
        for place in range(len(rounds[epoch % len(rounds)]))
    ]
    losses: list[float] = state.get("losses", [])
    if losses:
        head.load_state_dict(state["head"])
        optimiser.load_state_dict(state["optimiser"])
    left = steps[len(losses) :]
    first_time = list(dict.fromkeys(which for _, which in left))
    places = [rounds[number][place] for number, place in first_time]
    batches = data.load(places, workers, device)
    kept: dict[tuple[int, int], HeadBatch | None] = {}
    for epoch, which in _shown(left, "training", len(losses), len(steps)):
        passed = sum(epoch >= milestone for milestone in protocol.milestones)
        optimiser.param_groups[0]["lr"] = protocol.learning_rate * protocol.gamma**passed
        inputs = kept.get(which)
        if which not in kept:
            batch = next(batches)
            inputs = None if batch is None else segmenter.inputs(batch)
            if protocol.rounds is not None:
                kept[which] = inputs
        loss = torch.full((), torch.nan)
        if inputs is not None and (inputs.truth != VOID).any():
            logits = segmenter.logits(inputs)
            loss = F.cross_entropy(logits, inputs.truth.long(), ignore_index=VOID)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        losses.append(loss.item())
        if len(losses) % SAVE_STEPS == 0 or len(losses) == len(steps):
            state |= {
                "losses": losses,
                "head": head.state_dict(),
                "optimiser": optimiser.state_dict(),
            }
            progress.save(state)
    epochs = np.array([epoch for epoch, _ in steps])
    known = ~np.isnan(losses)
    if not known.any():
        raise TrainingError(
            f"no label map of {data.clips.shards.root} shows any of the {len(data.classes.ids)} "
            "classes; --classes all takes those that are there"
        )
    sums = np.bincount(epochs[known], np.array(losses)[known])
    return [float(value) for value in sums / np.maximum(np.bincount(epochs[known]), 1)]


def _test(
    segmenter: Segmenter,
    data: LabelledMoments,
    maps: int,
    batch_size: int,
    workers: int,
    progress: Progress,
    state: dict[str, Any],
) -> tuple[NDArray[np.int64], float]:
    """Counts of pixels (sources, 3, classes) from where ``state`` is, and the share of void."""
    segmenter.head.eval()
    sources = np.array(data.clips.shards.sources)
    names, number = np.unique(sources[data.samples], return_inverse=True)
    source_of = torch.zeros(len(sources), dtype=torch.int64)
    source_of[data.samples] = torch.from_numpy(number)
    classes = len(data.classes.ids)
    counts = state.get("counts", torch.zeros(len(names), 3, classes, dtype=torch.int64))
    tested, pixels = state.get("tested", 0), state.get("pixels", 0)
    batches = data.test(maps, batch_size)
    loaded = data.load(batches[tested:], workers, segmenter.networks.device)
    for batch in _shown(loaded, "testing", tested, len(batches)):
        tested += 1
        if batch is not None:
            of_clips = count(segmenter.predict(batch), batch.truth, classes).cpu()
            counts.index_add_(0, source_of[batch.clips.index.cpu()], of_clips)
            pixels += batch.truth.numel()
        if tested % SAVE_STEPS == 0:
            progress.save(state | {"counts": counts, "tested": tested, "pixels": pixels})
    valid = int(counts[:, TRUE].sum())
    if not valid:
        raise TrainingError(
            f"no label map of {data.clips.shards.root} shows any of the classes that were learned"
        )
    return counts.numpy(), 1 - valid / pixels


def _examples(segmenter: Segmenter, data: LabelledMoments, maps: int) -> list[Example]:
    """Of moments that are spread over the test, the views with the most to tell apart."""
    places = data.test(maps, 1)
    chosen = [places[at] for at in spread(len(places), EXAMPLES)]
    examples = []
    for batch in data.load(chosen, 0, segmenter.networks.device):
        if batch is None:
            continue
        truth, predicted = batch.truth[0].cpu().numpy(), segmenter.predict(batch)[0].cpu().numpy()
        view = int(np.argmin([np.bincount(labels.flat).max() for labels in truth]))
        frames = batch.clips.frames[0, view]
        picture = frames[len(frames) // 2].cpu().numpy()
        key = data.clips.shards.keys[int(batch.clips.index[0])]
        examples.append(Example(key, picture, truth[view], predicted[view]))
    return examples


def _shown(steps: Iterable[_Step], what: str, done: int, total: int) -> Iterator[_Step]:
    """The steps, with a bar."""
    every_s = 0.5 if sys.stderr.isatty() else 30.0
    bar = tqdm(steps, what, total=total, initial=done, unit="step", mininterval=every_s)
    return iter(bar)
