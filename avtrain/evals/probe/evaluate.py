"""What does a frozen feature know? Probes read from it what the set says of a window.

Inputs are the features of a view's audio, of its video, both together, and the audio's feature as
a trained transformer predicts it. A linear probe, and one with a hidden layer, predict from each:
the direction of the only source that sounds, in the frame of the view; whether the view shows its
place, and where; its class and distance; the number of sources; and the reverberation time. What
a set does not say is not asked, and the result names it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from avtrain.data.plan import Plan
from avtrain.errors import TrainingError
from avtrain.evals.evaluation import EvaluationOptions, open_evaluation
from avtrain.evals.feature_store import BATCH_SIZE, FrozenFeatures, WindowOptions
from avtrain.evals.probe.data import SplitReader, empty_features
from avtrain.evals.probe.figure import plot_probes
from avtrain.evals.probe.fit import probe_target
from avtrain.evals.probe.model import HELD_OUT, HIDDEN, STRENGTHS
from avtrain.evals.probe.targets import TARGETS
from avtrain.evals.results import Result

TASK = "probe"
UNKNOWN = "unknown"
"""Key in the details: why there are no metrics of a target, by its name."""


@dataclass(frozen=True, kw_only=True)
class ProbeOptions(WindowOptions):
    """Probes are fitted to ``rounds`` passes over the training split, each with windows, views and
    augmentation of its own."""

    rounds: int = 4


def evaluate_probe(common: EvaluationOptions, options: ProbeOptions) -> Result:
    """Fit the probes on one split, test them on the other, draw a figure, write and return the
    result.

    Raises TrainingError for a set that says nothing that could be asked.
    """
    run = open_evaluation(TASK, common)
    views = options.views_to_read(run.train)
    clip = replace(common.config.clip, views=views, moments=1)
    networks = run.load_networks()
    progress = run.progress(
        networks.described,
        {
            "views": (options.views, views),
            "rounds": options.rounds,
            "windows": options.windows,
            "data": (run.train.sha256, common.train_split),
            "test": common.test_split,
        },
    )
    if (written := progress.finished_result()) is not None:
        return written

    splits, epochs = ("train", "test"), (options.rounds, options.windows)
    sizes = [(len(split), options.views) for split in (run.train, run.test)]
    state = progress.load()
    if state is None:
        state = {name: [] for name in splits}
    else:
        example = {
            name: [empty_features(networks, *size)]
            for name, size in zip(splits, sizes, strict=True)
        }
        progress.check(state, example)
    missing = [range(len(state[name]), number) for name, number in zip(splits, epochs, strict=True)]
    bar = run.bar(sum(size[0] * len(part) for size, part in zip(sizes, missing, strict=True)))
    clips = run.train_clips(clip, directions=True), run.test_clips(clip, options.windows)
    plans = (Plan(split, common.seed, BATCH_SIZE) for split in (run.train, run.test))
    readers = [
        SplitReader(FrozenFeatures(networks, split, plan, run.workers, unreadable, options), bar)
        for split, plan, unreadable in zip(clips, plans, run.unreadable, strict=True)
    ]
    for name, reader, part in zip(splits, readers, missing, strict=True):
        for epoch in part:
            state[name].append(reader.read(epoch))
            progress.save(state)
    bar.close()
    train, test = (reader.items(state[name]) for name, reader in zip(splits, readers, strict=True))
    probed = {target.name: probe_target(target, train, test, common.seed) for target in TARGETS}
    metrics = {name: metric for one in probed.values() for name, metric in one.metrics.items()}
    unknown = {name: one.unknown for name, one in probed.items() if one.unknown}
    if not metrics:
        raise TrainingError(
            f"{run.train.root} says nothing about its clips that could be asked: "
            f"{next(iter(unknown.values()))}; build the set from labelled recordings, such as "
            "STARSS or the generated world"
        )
    result = run.result(
        networks.described,
        metrics,
        options.views,
        test={"rounds": options.rounds, "windows": options.windows},
        details={
            "probes": f"ridge of {STRENGTHS[0]:g} to {STRENGTHS[-1]:g}; {HIDDEN} hidden units; "
            f"chosen on {HELD_OUT:.0%} of the training recordings",
            UNKNOWN: unknown,
            "targets": {name: one.details for name, one in probed.items() if one.metrics},
        },
    )
    return run.finish(progress, result, plot_probes)
