"""The page of `make study`: settings, results, comparisons, training."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from avprep.world.scene import CLIPS_PER_PLACE, DURATION_S, KINDS, VARIATION
from avtrain.evals.tables import format_value, markdown
from avtrain.report.figures import Training, draw_curves, draw_results
from avtrain.report.lines import Line, network_order
from avtrain.report.page import NOTE, value_cells
from benchmarks.study.claims import CLAIMS, SECOND_METRIC, compare
from shards.files import write_atomic

_VARIED = {
    "hue_deg": "hue, degrees from the kind's",
    "radius_deg": "radius, degrees",
    "brightness": "brightness",
    "aspect": "aspect",
    "semitones": "pitch, semitones from the kind's",
    "tempo": "tempo, factor",
    "timbre": "timbre",
    "noise_db": "diffuse noise, dB against a source at 0 dB",
    "reverb_db": "diffuse tail, dB against the direct sound",
}


_HOW = """\
```bash
make study                                       # hours on a CPU; three seeds
make study QUICK=1                               # a few minutes, a world too small to learn from
make study BF16=1 SEEDS=5 BEGIN=docs/study.zip   # this page's study, with two seeds more
python -m benchmarks.study --plan                # list the jobs, run none
```

The study pretrains networks on a generated world with AVC, AVTS, AVSA, and AVSA after AVC
(curriculum). AVSA and the curriculum run with and without the transformer. Each combination runs
with log-mels alone and with log-mel + intensity, and from several seeds. All networks, and
untrained ones for comparison, go through the evaluations of `avtrain eval`.

Jobs run side by side (`JOBS`, by default one per core; on a GPU as well), one thread each. Finished
jobs stay in `study/`: run the same command again to resume after a kill or a failure, or to add
`SEEDS`. After a change of `STEPS` or `CLIPS`, the jobs that depend on it run again. `ONLY=REGEX`
selects jobs by name.

A study keeps results, settings and logs in `study.zip`, in its folder (after a kill as well) and
beside this page. `BEGIN=FILE` continues from such a file on another machine: it makes the sets
again and takes over all results of the same settings and sets. `docs/study.zip` belongs to this
page. [study-notes.md](study-notes.md) says what was tried where an expected order did not come
out."""


def write_page(
    page: Path,
    lines: Sequence[Line],
    trainings: Sequence[Training],
    world: Path,
    facts: dict[str, str],
) -> None:
    """Write the page, and its figures beside it.

    ``facts``: settings, versions and what is missing, as text. ``world``: the folder of the
    generated recordings.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    results_figure, curves_figure = (page.with_name(f"study-{name}.png") for name in _FIGURES)
    draw_results(lines, results_figure)
    if trainings:
        draw_curves(trainings, curves_figure)
    made = f"{facts['command']}, {facts['written on']}; jobs: {facts['jobs']}."
    parts = [
        "# Results",
        _HOW,
        "`make study` writes this page from the results of its runs; nothing in it is written by "
        "hand.",
        "## Summary",
        "The first metric of each task on places that were never seen in training: the mean over "
        "the seeds and, from three seeds on, its 95 % interval; else *n*, the number of seeds.",
        summary(lines),
        made,
        "## Settings",
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        "## The world",
        describe_world(world),
        "## All metrics",
        "Each row is one kind of network over all its seeds; `untrained` is the mean of random "
        f"networks with the same features, views and test. {NOTE}",
        f"![Results]({results_figure.name})",
        *_tables(lines),
        "## Comparisons",
        "Each difference is between networks of the same seed, trained on the same clips in the "
        "same order, in the task's first metric (in localization also where a single source "
        "sounds, which asks for its direction and nothing else); above zero is better. The 95 % "
        "interval is over the seeds, by Student's t: it holds for these test recordings, and says "
        "nothing about others (`over sources` above does, for each network by itself). *Holds*: "
        "the interval is above zero. *Reversed*: it is below zero. *Undecided*: it contains zero, "
        "or there are fewer than three seeds. With this many comparisons some are decided by "
        "chance. The first table shows one setting of each claim and task, and counts all of them.",
        compare(CLAIMS, lines),
    ]
    if trainings:
        parts += [
            "## Training",
            "How well networks solve their own pretext task on the clips that they train on: means "
            "over the last tenth of the steps, and over the seeds. Compare losses and clip "
            "accuracies only within one pretext task: their batches differ.",
            _training_table(trainings),
            f"![Training curves]({curves_figure.name})",
        ]
    write_atomic(page, ("\n\n".join(parts) + "\n").encode())


_FIGURES = ("results", "curves")
_COLUMNS: dict[tuple[str | int, ...], str] = {
    ("avsa-bin", 1): "AVSA-Bin, 1 view, %",
    ("avsa-bin", 4): "AVSA-Bin, 4 views, %",
    ("avc-bin", 4): "AVC-Bin, 4 views, %",
    ("retrieval", 4): "retrieval of a view among four, %",
    ("localization", 4): "localization error, °",
    ("localization", 4, SECOND_METRIC["localization"]): "localization error, one source, °",
    ("segmentation-none", 4): "segmentation, mIoU %",
    ("segmentation-audio", 4): "segmentation with audio, mIoU %",
    ("segmentation-audio+context", 4): "segmentation with audio and context, mIoU %",
    ("action-probe", 1): "actions (linear probe), Video@1 %",
}


def summary(lines: Sequence[Line]) -> str:
    """Markdown with one row per kind of network: the mean over its seeds and, from three seeds on,
    its 95 % interval; else the number of seeds."""
    in_summary = [line for line in lines if _column(line) in _COLUMNS]
    shown = {(network_order(line), _column(line)): line for line in in_summary}
    measured = {column for _, column in shown}
    columns = {key: title for key, title in _COLUMNS.items() if key in measured}
    rows = []
    for network in sorted({network for network, _ in shown}):
        row: dict[str, str] = {}
        for column, title in columns.items():
            line = shown.get((network, column))
            if line is None:
                continue
            row |= {
                **line.name.cells(with_steps=False),
                title: format_value(line.mean, line.unit),
            }
            if line.over_seeds is not None and len(line.by_seed) > 2:
                low, high = (format_value(end, line.unit) for end in line.over_seeds)
                row[title] += f" ({low} to {high})"
            else:
                row[title] += f" (n={len(line.by_seed)})"
        names = ("pretraining", "transformer", "features", *columns.values())
        rows.append({name: row.get(name, "-") for name in names})
    chance = {"pretraining": "chance", "transformer": "", "features": ""}
    for column, title in columns.items():
        line = next(line for (_, shown_in), line in shown.items() if shown_in == column)
        chance[title] = "-" if line.chance is None else format_value(line.chance, line.unit)
    return markdown([*rows, chance])


def _column(line: Line) -> tuple[str | int, ...]:
    return (line.task, line.views) if line.first else (line.task, line.views, line.metric)


def _tables(lines: Sequence[Line]) -> list[str]:
    random: dict[tuple[Any, ...], Line] = {_test(line): line for line in lines if line.untrained}
    tasks: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    for line in lines:
        untrained = random.get(_test(line))
        name, values = line.name.cells(with_steps=False), value_cells(line)
        values["mean"] += f" {line.unit}".rstrip()
        tasks[line.task].append(
            {
                "pretraining": name["pretraining"],
                "transformer": name["transformer"],
                "features": name["features"],
                "views": str(line.views),
                "metric": line.metric,
                **values,
                "chance": "-" if line.chance is None else format_value(line.chance, line.unit),
                "untrained": "-" if untrained is None else format_value(untrained.mean, line.unit),
            }
        )
    return [f"### {task}\n\n{markdown(rows)}" for task, rows in tasks.items()]


def _training_table(trainings: Sequence[Training]) -> str:
    groups: defaultdict[tuple[str, str], list[Training]] = defaultdict(list)
    for training in trainings:
        groups[training.pretraining, training.name].append(training)
    rows = []
    for (pretraining, name), seeds in sorted(groups.items()):
        ends = {
            column: np.mean(
                [seed.columns[column][-max(1, _steps(seed) // 10) :].mean() for seed in seeds]
            )
            for column in seeds[0].columns
        }
        slots = seeds[0].slots
        rows.append(
            {
                "pretraining": pretraining,
                "networks": name,
                "steps": _range_of([_steps(seed) for seed in seeds]),
                "seeds": str(len(seeds)),
                "loss": f"{ends['loss']:.2f}",
                "right clip": f"{ends['clip_accuracy']:.1%}",
                "right view or moment": "-" if slots == 1 else f"{ends['view_accuracy']:.1%}",
                "chance": "-" if slots == 1 else f"{1 / slots:.1%}",
            }
        )
    return markdown(rows)


def _test(line: Line) -> tuple[Any, ...]:
    return line.task, line.variant, line.views, line.metric, line.network.features


def describe_world(world: Path) -> str:
    """The constants that the world is drawn from, and the contents of the clips in the folder."""
    varied = [
        {
            "": title,
            **{split: _range(getattr(VARIATION[split], name)) for split in ("train", "test")},
        }
        for name, title in _VARIED.items()
    ]
    unnamed = {item.name for item in fields(VARIATION["train"])} - _VARIED.keys()
    if unnamed:
        raise ValueError(f"the page has no title for {', '.join(sorted(unnamed))}")
    intro = (
        f"Clips of {DURATION_S:g} s, {CLIPS_PER_PLACE} from each place; {len(KINDS)} kinds of "
        "objects. The test places are never trained on, and their objects are drawn from other "
        "ranges:"
    )
    truths = [json.loads(path.read_bytes()) for path in sorted((world / "truth").glob("*.json"))]
    counted = _counted(truths) if truths else "The recordings of the study are no longer there."
    return f"{intro}\n\n{markdown(varied)}\n\n{counted}"


def _counted(truths: Sequence[dict[str, Any]]) -> str:
    splits = sorted({truth["split"] for truth in truths}, reverse=True)
    columns = {
        split: _world_numbers([t for t in truths if t["split"] == split]) for split in splits
    }
    rows = [
        {"": name, **{split: columns[split][name] for split in splits}}
        for name in columns[splits[0]]
    ]
    return f"The clips of this study:\n\n{markdown(rows)}"


def _world_numbers(truths: Sequence[dict[str, Any]]) -> dict[str, str]:
    sounding, silent, look_alike, unseen, repeated, above_noise = [], [], [], [], [], []
    for truth in truths:
        audible = [item for item in truth["objects"] if not item["silent"]]
        mute = [item for item in truth["objects"] if item["silent"]]
        kinds = [item["kind"] for item in audible]
        sounding.append(len(audible))
        silent.append(len(mute))
        look_alike.append(any(item["kind"] in kinds for item in mute))
        repeated.append(len(set(kinds)) < len(kinds))
        unseen.append(any(not item["visible"] for item in audible))
        noise = truth["diffuse_noise_dbfs"]
        above_noise += [max(item["level_dbfs"]) - noise for item in audible]
    tails = [truth["reverberation_db"] for truth in truths]
    times = [truth["reverberation_rt60_s"] for truth in truths]
    counts = f"{np.mean(sounding):.2f} ({min(sounding)} to {max(sounding)})"
    return {
        "clips": str(len(truths)),
        "places": str(len({truth["source"] for truth in truths})),
        "sounding objects per clip": counts,
        "silent objects per clip": f"{np.mean(silent):.2f} ({min(silent)} to {max(silent)})",
        "clips with a silent look-alike of a sounding object": f"{np.mean(look_alike):.0%}",
        "clips with several sounding objects of one kind": f"{np.mean(repeated):.0%}",
        "clips with a sounding object that is not in the picture": f"{np.mean(unseen):.0%}",
        "loudest moment of an object above the diffuse noise, dB (quartiles)": _quartiles(
            above_noise
        ),
        "diffuse tail against the direct sound, dB (quartiles)": _quartiles(tails),
        "reverberation time, s (quartiles)": _quartiles(times, 2),
    }


def _quartiles(values: Sequence[float], digits: int = 0) -> str:
    return " / ".join(f"{value:.{digits}f}" for value in np.percentile(values, [25, 50, 75]))


def _steps(training: Training) -> int:
    return len(training.columns["loss"])


def _range_of(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:g} to {ends[1]:g}"
