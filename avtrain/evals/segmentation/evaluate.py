"""Semantic segmentation: the class of each pixel from frozen features, with and without audio.

Morgado, Li and Vasconcelos (NeurIPS 2020), section 4: a feature pyramid on the frozen stages of
the video network; beside the deepest maps stand the audio feature of the view and the predictions
of the transformers from the video and audio of all views. The frames are those around the moment
of the label map. Metrics count the pixels of the whole test set.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch

from avtrain.errors import TrainingError
from avtrain.evals.evaluation import EvaluationOptions, open_evaluation
from avtrain.evals.results import Result
from avtrain.evals.segmentation.data import YT360, LabelledMoments, find_classes, spread
from avtrain.evals.segmentation.figure import Example, plot_overlays
from avtrain.evals.segmentation.metrics import segmentation_metrics
from avtrain.evals.segmentation.model import Segmenter
from avtrain.evals.segmentation.protocol import Condition, SegmentationProtocol
from avtrain.evals.segmentation.train import count_test_pixels, train_head

EXAMPLES = 12


@dataclass(frozen=True, kw_only=True)
class SegmentationOptions:
    """``test_root``: the set of the test split (None: the same). Up to ``maps`` label maps of each
    test clip are tested, in all views; training clips have ``views``."""

    protocol: SegmentationProtocol
    condition: Condition = "none"
    views: int = 4
    maps: int = 5
    test_root: str | None = None


def evaluate_segmentation(common: EvaluationOptions, options: SegmentationOptions) -> Result:
    """Train the head on one split, test it on the other, draw examples, write and return the
    result. An interrupted evaluation resumes to the same result."""
    protocol, config = options.protocol, common.config
    context = options.condition == "audio+context"
    if context and common.checkpoint is not None and not config.trains_transformers:
        raise TrainingError(
            f"{common.checkpoint} has no transformers that were trained, which give the context; "
            "use --condition audio, or pretrain with --transformer"
        )
    task = f"segmentation-{options.condition}"
    run = open_evaluation(task, common, test_root=options.test_root)
    classes = YT360 if protocol.classes == "yt360" else find_classes(run.train)
    clip = replace(config.clip, views=options.views, moments=1)
    train = LabelledMoments(run.train_clips(clip), classes, False, run.unreadable_train)
    test_clips = run.test_clips(replace(clip, views=1))
    test = LabelledMoments(test_clips, classes, True, run.unreadable_test)
    # Random networks are calibrated on the views of this evaluation.
    networks = run.load_networks(replace(config, clip=clip) if common.checkpoint is None else None)
    described = replace(networks.described, transformer=networks.transformer and context)
    torch.manual_seed(common.seed)
    segmenter = Segmenter(networks, options.condition, options.views, classes, protocol)
    progress = run.progress(
        described,
        {
            "protocol": asdict(protocol),
            "classes": classes.ids,
            "views": options.views,
            "maps": options.maps,
            "data": (run.train.sha256, common.train_split),
            "test": (run.test.sha256, common.test_split),
        },
    )
    if (written := progress.finished_result()) is not None:
        return written

    state = progress.load() or {}
    losses = train_head(segmenter, train, protocol, run.workers, progress, state)
    batches = test.test_batches(options.maps, protocol.batch_size)
    pixels, void = count_test_pixels(segmenter, test, batches, run.workers, progress, state)
    metrics, details = segmentation_metrics(pixels, classes)
    result = run.result(
        described,
        metrics,
        options.views,
        test={
            "maps_of_a_clip": options.maps,
            "protocol": asdict(protocol),
            "labels": list(classes.ids),
        },
        details=details | {"void_share": void, "train_clips": len(train.samples), "loss": losses},
        tested=test.samples[run.unreadable_test.readable(test.samples)],
    )
    examples = _examples(segmenter, test, options.maps)
    return run.finish(progress, result, partial(plot_overlays, examples, classes))


def _examples(segmenter: Segmenter, data: LabelledMoments, maps: int) -> list[Example]:
    """Moments spread evenly over the test, each with the view whose truth is the least uniform."""
    places = data.test_batches(maps, 1)
    chosen = [places[at] for at in spread(len(places), EXAMPLES)]
    examples = []
    with closing(data.load(chosen, 0, segmenter.networks.device)) as loaded:
        for batch in loaded:
            if batch is None:
                continue
            truth = batch.truth[0].cpu().numpy()
            predicted = segmenter.predict(batch)[0].cpu().numpy()
            view = int(np.argmin([np.bincount(labels.flat).max() for labels in truth]))
            frames = batch.clips.frames[0, view]
            frame = frames[len(frames) // 2].cpu().numpy()
            key = data.clips.shards.keys[int(batch.clips.index[0])]
            examples.append(Example(key, frame, truth[view], predicted[view]))
    return examples
