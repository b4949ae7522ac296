"""Sound event localization and detection (SELD), the task of DCASE: which class sounds in each
frame of 100 ms, and from where.

The audio network hears the recording's own sound field, and its maps before pooling lead to a head
with multi-ACCDOA, see `model` and `loss`. Networks and head are trained together on labels of a
share of the training split's recordings, or the head alone (a probe); every share is one result,
whose file lies in a folder of its own, with the estimates of all test recordings as DCASE's CSV
files beside it. The statistics of the features are those of the whole split: they need no labels.

The first metric is F20°: it asks for class, direction and activity at once, is never undefined, and
all of DCASE's years rank by it; LE_CD alone is best for networks that report only what is easy.
Intervals are by bootstrap over recordings: a round averages over the classes that sound in the
recordings that it draws, and over those that sound in none of the test. Those of DCASE's jackknife
are in the details, if more than one recording has sounds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avtrain.errors import TrainingError
from avtrain.evals.bootstrap import draw_sources, middle_95
from avtrain.evals.evaluation import Evaluation, EvaluationOptions, open_evaluation
from avtrain.evals.frozen import Networks
from avtrain.evals.results import SHARE, Metric, Result, file_name
from avtrain.evals.seld.detections import write_dcase
from avtrain.evals.seld.figure import plot_labels
from avtrain.evals.seld.labels import LabelledClips
from avtrain.evals.seld.metrics import (
    Counts,
    Floats,
    Scores,
    count,
    jackknife_95,
    scored_frames,
    scores_by_class,
)
from avtrain.evals.seld.protocol import TRACKS, SeldProtocol
from avtrain.evals.seld.train import Recording, SeldRun, join_recordings
from shards.errors import show

TASK, FIGURE = "seld", "seld-labels.png"
NO_NETWORK = "log-mel + intensity"
"""Features where there is no network, in tables."""


@dataclass(frozen=True)
class SeldOptions:
    """``shares`` of the training split's recordings whose labels are learned from. With
    ``baseline``, random networks are trained beside the checkpoint's. The video input has
    ``views``."""

    protocol: SeldProtocol
    shares: tuple[float, ...] = (1.0,)
    views: int = 4
    baseline: bool = True


def evaluate_seld(common: EvaluationOptions, options: SeldOptions) -> list[Result]:
    """Train and test on every share, write and return the results, those of the baseline first.

    An interrupted call resumes: its states stay in the folders of the shares until all results are
    written. Raises TrainingError for sets without labels or without ambisonics.
    """
    protocol, sound = options.protocol, common.config.sound
    if sound.audio != "foa":
        raise TrainingError(
            f"SELD needs ambisonics, but these networks hear {sound.audio}; name a checkpoint that "
            "was trained with --audio foa"
        )
    if common.energy and protocol.with_video:
        raise TrainingError("--video is the feature of a video network; name a checkpoint")
    both = options.baseline and common.checkpoint is not None
    results: dict[tuple[float, bool], Result] = {}
    states, parts = [], dict[float, int]()
    # The checkpoint is first, since it may not fit the set.
    for checkpoint in [common.checkpoint, None] if both else [common.checkpoint]:
        one = replace(common, checkpoint=checkpoint)
        networks: Networks | None = None
        for share in options.shares:
            run = open_evaluation(TASK, replace(one, out=common.out / _folder(share, options)))
            networks = run.load_networks() if networks is None else networks
            result, state = _evaluate_share(run, networks, share, options, parts)
            results[share, checkpoint is None] = result
            states.append(state)
    ordered = [results[key] for key in sorted(results, key=lambda key: (not key[1], key[0]))]
    common.out.mkdir(parents=True, exist_ok=True)
    plot_labels(ordered, common.out / FIGURE)
    for state in states:
        state.unlink(missing_ok=True)
    return ordered


def _folder(share: float, options: SeldOptions) -> str:
    protocol = options.protocol
    words = [TASK, *["probe"] * protocol.probe, *["video"] * protocol.with_video]
    return "-".join([*words, f"labels{share:g}"])


def _evaluate_share(
    run: Evaluation,
    networks: Networks,
    share: float,
    options: SeldOptions,
    parts: dict[float, int],
) -> tuple[Result, Path]:
    """The result, and the file of its state, which is no longer needed once all are written.
    ``parts``: the numbers of recordings of the shares so far."""
    protocol, common = options.protocol, run.options
    labelled = LabelledClips.read(run.train, run.unreadable_train)
    test = LabelledClips.read(run.test, run.unreadable_test)
    classes = labelled.classes
    scored = tuple(sorted({*classes, *test.classes}))
    distance = protocol.definition == "2024" and labelled.has_distance and test.has_distance
    views = options.views if protocol.with_video else 1
    clip = replace(common.config.clip, views=views, moments=1)
    train = labelled.part(share, common.seed)
    _say_part(share, len(train.sources), len(labelled.sources), parts)
    described = networks.described
    if networks.is_energy:
        described = replace(described, features=NO_NETWORK)
    settings = {
        "protocol": protocol.to_dict(),
        "labels": (share, len(train.frames)),
        "classes": (classes, scored),
        "views": views,
        "data": (run.train.sha256, common.train_split),
        "test": (run.test.sha256, common.test_split),
    }
    progress = run.progress(described, settings)
    if (written := progress.finished_result()) is not None:
        return written, progress.path
    seld = SeldRun(run, networks, train, test, classes, protocol, clip)
    with run.bar(protocol.steps * protocol.batch_size + len(test.frames)) as bar:
        net, losses = seld.fit(progress, bar)
        found = seld.predict(net, bar)
    recordings = join_recordings(test, found, train.knows_distances)
    _write_estimates(recordings, common.out / file_name("csv", described.kind))
    metrics, details = seld_metrics(recordings, scored, protocol, distance)
    details |= {
        "train_clips": len(train.frames),
        "train_recordings": train.sources,
        "classes_learned": list(classes),
        "more_than_three_of_one_class": _crowded(train),
        "loss": losses,
    }
    result = run.result(
        replace(described, transformer=False),
        metrics,
        views,
        test={SHARE: share, "distance": distance, "protocol": protocol.to_dict()},
        details=details,
        tested=np.array(sorted(found), np.int64),
    )
    return run.finish(progress, result), progress.path


def seld_metrics(
    recordings: Sequence[Recording],
    classes: tuple[int, ...],
    protocol: SeldProtocol,
    distance: bool,
) -> tuple[dict[str, Metric], dict[str, Any]]:
    """Macro averages over ``classes``, F20° first, and details: each class, and the jackknife.

    A recording is scored as DCASE's code scores it, up to its last reference; one without any,
    which that code refuses, as a whole. Where nothing at all is paired, LE_CD is 180° and the
    relative distance error 100 %. Chance is a system that reports nothing, for LE_CD a random
    direction.
    """
    definition = protocol.definition
    counts = Counts.stack(
        [
            count(
                one.reference,
                one.estimate,
                classes,
                definition,
                distance,
                scored_frames(one.reference) if len(one.reference) else one.frames,
            )
            for one in recordings
        ]
    )
    number, drawn = draw_sources([one.source for one in recordings])
    every = np.ones(len(recordings))

    def values(summed: Counts, known: NDArray[np.bool_] | None = None) -> dict[str, Floats]:
        return _values(scores_by_class(summed, definition, distance).average(known))

    whole = {name: float(value) for name, value in values(counts.weighted(every)).items()}
    rounds = None
    if drawn is not None:
        summed = counts.weighted(drawn[:, number].astype(np.float64))
        # A class of which a round draws no recording would count as missed in every recording.
        known = (summed.references > 0) | (counts.references.sum(axis=0) == 0)
        rounds = values(summed, known)
        if counts.references.any():  # an error rate without any reference has no limit
            defined = summed.references.any(axis=-1)
            rounds = {name: found[defined] for name, found in rounds.items()}
    units = {"LE_CD": "°"}
    metrics = {
        name: Metric(
            value,
            None if rounds is None else middle_95(rounds[name]),
            _CHANCE.get(name),
            units.get(name, "%"),
            "higher" if name in ("F20°", "LR_CD") else "lower",
        )
        for name, value in whole.items()
    }
    by_class = _values(scores_by_class(counts.weighted(every), definition, distance))
    details: dict[str, Any] = {
        "classes": list(classes),
        "by_class": {name: [round(float(v), 4) for v in by_class[name]] for name in whole},
        "frames_covered_twice": sum(one.twice for one in recordings),
    }
    if counts.references.any(axis=1).sum() > 1:
        without = values(counts.weighted(1 - np.eye(len(recordings))))
        details["jackknife_95"] = {
            name: list(jackknife_95(whole[name], without[name])) for name in whole
        }
    return metrics, details


def _say_part(share: float, recordings: int, every: int, parts: dict[float, int]) -> None:
    """Say once how many recordings a share is, if whole ones cannot make it."""
    if share in parts:
        return
    earlier = next((one for one, number in parts.items() if number == recordings), None)
    parts[share] = recordings
    words = f"--labels {share:g}: the labels of {recordings} of {every} recordings"
    if earlier is not None:
        show(f"{words}, as for {earlier:g}", err=True)
    elif recordings > 1.1 * share * every:
        show(f"{words} ({100 * recordings / every:.0f} %)", err=True)


_CHANCE = {"F20°": 0.0, "ER20°": 1.0, "LE_CD": 90.0, "LR_CD": 0.0}


def _values(scores: Scores) -> dict[str, Floats]:
    """The metrics by their names in results, worst values in place of undefined ones."""
    found = {
        "F20°": scores.f20,
        "ER20°": scores.er20,
        "LE_CD": np.nan_to_num(scores.le_cd_deg, nan=180.0),
        "LR_CD": scores.lr_cd,
        "SELD score": scores.seld,
    }
    if scores.relative_distance is not None:
        found["distance error"] = np.nan_to_num(scores.relative_distance, nan=1.0)
    # Estimates without any reference give errors without a limit.
    return {name: np.minimum(value, 1e6) for name, value in found.items()}


def _crowded(train: LabelledClips) -> int:
    """Frames in which more sources of a class sound than there are tracks: some are not learned."""
    crowded = 0
    for found in train.frames.values():
        for events in found.by_frame.values():
            kinds = [event.kind for event in events]
            crowded += any(kinds.count(kind) > TRACKS for kind in set(kinds))
    return crowded


def _write_estimates(recordings: Sequence[Recording], folder: Path) -> None:
    """A file per recording, named as the recording: names in a set from elsewhere lead nowhere.

    Files of an earlier result are removed first: official scripts score all that lie there.
    """
    for earlier in folder.glob("*.csv"):
        earlier.unlink()
    names: set[str] = set()
    for one in recordings:
        stem = re.sub(r"[^\w.-]", "_", one.source.rpartition("/")[2], flags=re.ASCII)[:100] or "_"
        name, number = stem, 0
        while name.lower() in names:
            number += 1
            name = f"{stem}-{number}"
        names.add(name.lower())
        write_dcase(one.estimate, folder / f"{name}.csv")
