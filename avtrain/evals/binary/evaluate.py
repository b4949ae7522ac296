"""AVC-Bin and AVSA-Bin: a small classifier on frozen features tells matched from mismatched pairs.

Morgado, Li and Vasconcelos (NeurIPS 2020), section 4: the features of video and audio side by side
for every view; the views of a clip decide together. The mismatched audio is that of another clip
for AVC, and that of the same clip with the whole field rotated by a random yaw for AVSA.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from avtrain.data.clips import Clips
from avtrain.data.plan import Plan
from avtrain.errors import TrainingError
from avtrain.evals.binary.data import PairReader
from avtrain.evals.binary.decisions import accuracies_by_truth
from avtrain.evals.binary.model import PairClassifier
from avtrain.evals.binary.protocol import BinaryProtocol, BinaryTask, VideoInput
from avtrain.evals.binary.train import decide_pairs, train_classifier
from avtrain.evals.bootstrap import mean_metric
from avtrain.evals.evaluation import EvaluationOptions, open_evaluation
from avtrain.evals.feature_store import FrozenFeatures, WindowOptions
from avtrain.evals.results import Result
from shards.geometry import ACN_CHANNELS

CHANCE = 0.5


@dataclass(frozen=True, kw_only=True)
class BinaryOptions(WindowOptions):
    """Options of AVC-Bin and AVSA-Bin."""

    task: BinaryTask
    protocol: BinaryProtocol
    video_input: VideoInput = "prediction"

    @property
    def name(self) -> str:
        """The task in results. With another input than the published one it is another test."""
        return "-".join([self.task, "bin", *self.stated_input.values()])

    @property
    def stated_input(self) -> dict[str, str]:
        """What settings say of the input: nothing of the published one, which earlier results do
        not state."""
        return {} if self.video_input == "prediction" else {"input": self.video_input}


def evaluate_binary(common: EvaluationOptions, options: BinaryOptions) -> Result:
    """Train the classifier on one split, test it on the other, write and return the result."""
    run = open_evaluation(options.name, common)
    protocol, seed = options.protocol, common.seed
    views = options.views_to_read(run.train)
    clip = replace(common.config.clip, views=views, moments=1)
    clips = run.train_clips(clip), run.test_clips(clip, options.windows)
    plans = (
        Plan(run.train, seed, protocol.batch_size, protocol.clips_per_source),
        Plan(run.test, seed, protocol.batch_size),
    )
    _check_task(options.task, clips, plans)
    networks = run.load_networks()
    progress = run.progress(
        networks.described,
        {
            "protocol": asdict(protocol),
            "views": (options.views, views),
            "windows": options.windows,
            "data": (run.train.sha256, common.train_split),
            "test": common.test_split,
            **options.stated_input,
        },
    )
    if (written := progress.finished_result()) is not None:
        return written

    bar = run.bar(plans[0].clips_per_epoch * protocol.rounds + len(run.test) * options.windows)
    train_pairs, test_pairs = (
        PairReader(
            options.task,
            options.video_input,
            FrozenFeatures(networks, split, plan, run.workers, unreadable, options),
            bar,
        )
        for split, plan, unreadable in zip(clips, plans, run.unreadable, strict=True)
    )
    torch.manual_seed(seed)
    inputs = networks.video_dim + networks.audio_dim
    if networks.transformer and options.video_input == "both":
        inputs += networks.video_dim
    classifier = PairClassifier(inputs, protocol.dropout)
    train_classifier(classifier, train_pairs.read_round, protocol, seed, progress)
    with closing(test_pairs.read(range(options.windows))) as pairs:
        decisions = decide_pairs(classifier, pairs)
    bar.close()
    decisions = decisions.select(run.unreadable_test.readable(decisions.index))
    sources = np.array(run.test.sources)[decisions.index]
    details = {"decisions": len(decisions.correct)}
    result = run.result(
        networks.described,
        {"accuracy": mean_metric(decisions.correct, sources, CHANCE)},
        options.views,
        test={"windows": options.windows, "protocol": asdict(protocol), **options.stated_input},
        details=details | accuracies_by_truth(decisions, clips[1]),
    )
    return run.finish(progress, result)


def _check_task(task: BinaryTask, clips: Sequence[Clips], plans: Sequence[Plan]) -> None:
    """Raise TrainingError where the set gives no mismatched audio."""
    if task == "avc":
        for plan in plans:
            plan.check_batches()
        return
    for split in clips:
        if split.first.audio.channels != ACN_CHANNELS:
            raise TrainingError(
                f"{split.shards.where} holds no ambisonics, which alone can be rotated; build it "
                "with --audio foa"
            )
