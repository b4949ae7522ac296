"""The page of `make study`: what was asked of which networks, and what came out."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from avprep.world.scene import CLIPS_PER_PLACE, DURATION_S, KINDS, VARIATION
from avtrain.evals.results import in_words, markdown
from avtrain.report.figures import Training, draw_curves, draw_results
from avtrain.report.lines import NOTE, Line, order_of, value_cells
from benchmarks.study.claims import BESIDE_THE_FIRST, CLAIMS, said
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


def write_page(
    page: Path,
    lines: Sequence[Line],
    trainings: Sequence[Training],
    world: Path,
    facts: dict[str, str],
) -> None:
    """The page and its figures, beside it. ``facts``: settings, versions and what is missing, as
    they are said; ``world``: the folder of the generated recordings."""
    page.parent.mkdir(parents=True, exist_ok=True)
    figures = {"results": draw_results, "curves": draw_curves}
    pictures = {name: page.with_name(f"{page.stem}-{name}.png") for name in figures}
    draw_results(lines, pictures["results"])
    if trainings:
        draw_curves(trainings, pictures["curves"])
    parts = [
        "# Pretraining on a generated world: a study",
        "Written by `make study` from the results of its runs; nothing here is written by hand.",
        "## What was run",
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        "## The world",
        describe_world(world),
        "## Results",
        "Each row is one kind of network over all its seeds; `untrained` is the mean of random "
        f"networks with the same features, views and test. {NOTE}",
        f"![Results]({pictures['results'].name})",
        *_tables(lines),
        "## What was asked",
        "Differences are between networks of the same seed, trained on the same clips in the same "
        "order, in the task's first metric (in localization also where one source sounds alone, "
        "which asks for its direction and for nothing else); above zero is better. Their 95 % "
        "interval is over the seeds, by Student's t: it is of these test recordings, and says "
        "nothing of others (`over sources` above does, for each network by itself). *Holds*: the "
        "interval is above zero. *Does not hold*: it is below. *Not decided*: it holds zero, or "
        "there are fewer than three seeds. With this many comparisons some are decided by chance. "
        "The first table shows one setting of each claim and task, and counts all of them.",
        said(CLAIMS, lines),
    ]
    if trainings:
        parts += [
            "## Training",
            "How well networks do their own task, on the clips that they are trained on: means "
            "over the last tenth of the steps, and over the seeds. Losses and clips compare only "
            "within a pretext task: batches differ.",
            _learned(trainings),
            f"![Training curves]({pictures['curves'].name})",
        ]
    write_atomic(page, ("\n\n".join(parts) + "\n").encode())


BEGIN, END = "<!-- written by make study -->", "<!-- end of what make study wrote -->"
_COLUMNS: dict[tuple[str | int, ...], str] = {
    ("avsa-bin", 1): "AVSA-Bin, 1 view, %",
    ("avsa-bin", 4): "AVSA-Bin, 4 views, %",
    ("avc-bin", 4): "AVC-Bin, 4 views, %",
    ("retrieval", 4): "retrieval of a view among four, %",
    ("localization", 4): "localization error, °",
    ("localization", 4, BESIDE_THE_FIRST["localization"]): "localization error, one source, °",
    ("segmentation-none", 4): "segmentation, mIoU %",
    ("segmentation-audio", 4): "segmentation with sound, mIoU %",
    ("segmentation-audio+context", 4): "segmentation with sound and context, mIoU %",
    ("action-probe", 1): "actions (linear probe), Video@1 %",
}


def write_summary(readme: Path, lines: Sequence[Line], facts: dict[str, str]) -> None:
    """A table of what was measured first in each task, between the marks of ``readme``."""
    text = readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme} lacks the marks {BEGIN} and {END}")
    made = f"{facts['command']}, {facts['written on']}; jobs: {facts['jobs']}."
    parts = [before + BEGIN, summary(lines), made, END + after]
    write_atomic(readme, "\n\n".join(parts).encode())


def summary(lines: Sequence[Line]) -> str:
    """Markdown: one row a kind of network, the mean over its seeds and, from three seeds on, its
    95 % interval; else how many there are."""
    shown = {(order_of(line), _column(line)): line for line in lines if _column(line) in _COLUMNS}
    there = {column for _, column in shown}
    columns = {key: words for key, words in _COLUMNS.items() if key in there}
    rows = []
    for network in sorted({network for network, _ in shown}):
        row: dict[str, str] = {}
        for column, words in columns.items():
            line = shown.get((network, column))
            if line is None:
                continue
            of = line.network
            row |= {
                "pretraining": "none" if line.untrained else of.pretraining,
                "transformer": of.kind_of_transformer,
                "features": of.features,
                words: in_words(line.mean, line.unit),
            }
            if line.over_seeds is not None and len(line.by_seed) > 2:
                low, high = (in_words(end, line.unit) for end in line.over_seeds)
                row[words] += f" ({low} to {high})"
            else:
                row[words] += f" (n={len(line.by_seed)})"
        names = ("pretraining", "transformer", "features", *columns.values())
        rows.append({name: row.get(name, "-") for name in names})
    chance = {"pretraining": "chance", "transformer": "", "features": ""}
    for column, words in columns.items():
        line = next(line for (_, of), line in shown.items() if of == column)
        chance[words] = "-" if line.chance is None else in_words(line.chance, line.unit)
    return markdown([*rows, chance])


def _column(line: Line) -> tuple[str | int, ...]:
    return (line.task, line.views) if line.first else (line.task, line.views, line.metric)


def _tables(lines: Sequence[Line]) -> list[str]:
    random: dict[tuple[Any, ...], Line] = {_test(line): line for line in lines if line.untrained}
    tasks: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    for line in lines:
        beside = random.get(_test(line))
        network = line.network
        values = value_cells(line)
        values["mean"] += f" {line.unit}".rstrip()
        tasks[line.task].append(
            {
                "pretraining": ("none" if line.untrained else network.pretraining)
                + (f" ({line.mark})" if line.mark else ""),
                "transformer": network.kind_of_transformer,
                "features": network.features,
                "views": str(line.views),
                "metric": line.metric,
                **values,
                "chance": "-" if line.chance is None else in_words(line.chance, line.unit),
                "untrained": "-" if beside is None else in_words(beside.mean, line.unit),
            }
        )
    return [f"### {task}\n\n{markdown(rows)}" for task, rows in tasks.items()]


def _learned(trainings: Sequence[Training]) -> str:
    alike: defaultdict[tuple[str, str], list[Training]] = defaultdict(list)
    for training in trainings:
        alike[training.pretraining, training.name].append(training)
    rows = []
    for (pretraining, name), seeds in sorted(alike.items()):
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
    """The constants that it is drawn from, and what the clips in the folder really hold."""
    varied = [
        {
            "": words,
            **{split: _range(getattr(VARIATION[split], name)) for split in ("train", "test")},
        }
        for name, words in _VARIED.items()
    ]
    unnamed = {item.name for item in fields(VARIATION["train"])} - _VARIED.keys()
    if unnamed:
        raise ValueError(f"the page has no words for {', '.join(sorted(unnamed))}")
    words = (
        f"Clips of {DURATION_S:g} s, {CLIPS_PER_PLACE} from each place; {len(KINDS)} kinds of "
        "objects. Places for testing are never trained on, and their objects are drawn from other "
        "ranges:"
    )
    truths = [json.loads(path.read_bytes()) for path in sorted((world / "truth").glob("*.json"))]
    counted = _counted(truths) if truths else "The recordings of the study are not there any more."
    return f"{words}\n\n{markdown(varied)}\n\n{counted}"


def _counted(truths: Sequence[dict[str, Any]]) -> str:
    splits = sorted({truth["split"] for truth in truths}, reverse=True)
    columns = {split: _numbers([t for t in truths if t["split"] == split]) for split in splits}
    rows = [
        {"": name, **{split: columns[split][name] for split in splits}}
        for name in columns[splits[0]]
    ]
    return f"In the clips of this study:\n\n{markdown(rows)}"


def _numbers(truths: Sequence[dict[str, Any]]) -> dict[str, str]:
    sounding, silent, alike, unseen, again, above_noise = [], [], [], [], [], []
    for truth in truths:
        heard = [item for item in truth["objects"] if not item["silent"]]
        mute = [item for item in truth["objects"] if item["silent"]]
        kinds = [item["kind"] for item in heard]
        sounding.append(len(heard))
        silent.append(len(mute))
        alike.append(any(item["kind"] in kinds for item in mute))
        again.append(len(set(kinds)) < len(kinds))
        unseen.append(any(not item["visible"] for item in heard))
        noise = truth["diffuse_noise_dbfs"]
        above_noise += [max(item["level_dbfs"]) - noise for item in heard]
    tails = [truth["reverberation_db"] for truth in truths]
    times = [truth["reverberation_rt60_s"] for truth in truths]
    return {
        "clips": str(len(truths)),
        "places": str(len({truth["source"] for truth in truths})),
        "sounding objects a clip": f"{np.mean(sounding):.2f} ({min(sounding)} to {max(sounding)})",
        "silent objects a clip": f"{np.mean(silent):.2f} ({min(silent)} to {max(silent)})",
        "clips with a silent look-alike of a sounding object": f"{np.mean(alike):.0%}",
        "clips with several sounding objects of one kind": f"{np.mean(again):.0%}",
        "clips in which something sounds that is not seen": f"{np.mean(unseen):.0%}",
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
