"""Figures of many runs: results as dots with their intervals, and training curves."""

from __future__ import annotations

import os
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avtrain.config import Config
from avtrain.evals.frozen import describe_settings
from avtrain.evals.tables import name_network
from avtrain.report.lines import Line, network_order
from avtrain.run_folder import CONFIG, FIRST_STAGE, LOG, read_log
from shards.errors import drawable, show
from shards.files import atomic_file

PANELS_A_ROW = 4
ROW_INCHES, HEAD_INCHES = 0.19, 0.85
CURVES_INCHES = 2.3
_WIDTH_INCHES = 14.0
UNTRAINED_COLOUR = "0.45"
HOW_TO_READ = (
    "Dot: mean over seeds; small ticks: each seed; thick: over seeds (95 % by Student's t, or the "
    "range of two); thin: over recordings (95 %, bootstrap); hollow squares: untrained; "
    "dotted: chance."
)
_COLUMNS = {"loss": "loss", "clip_accuracy": "right clip", "view_accuracy": "right view or moment"}


@dataclass(frozen=True)
class Training:
    """The log of a run. ``name`` is the network's without its pretraining; ``slots`` the number of
    views or moments that are compared; ``columns`` the values of each step (steps,), NaN where
    there are none."""

    pretraining: str
    name: str
    digest: str
    seed: int
    folder: str
    slots: int
    columns: dict[str, NDArray[np.float64]]


def read_trainings(runs: Sequence[Path]) -> tuple[list[Training], list[str]]:
    """Trainings of all logs in these folders and their subfolders, without half-written lines; and
    a sentence about each that is left out because its settings or its log cannot be read."""
    paths = sorted({path for run in runs for path in run.rglob(LOG)})
    trainings, left_out = [], []
    for path in paths:
        try:
            training = _read_training(path, path.parent.parent / LOG in paths)
        except OSError as error:
            left_out.append(f"{error.filename}: {error.strerror}")
        except ValueError as error:
            settings = path.parent / CONFIG
            left_out.append(f"{settings} does not hold the settings of a run: {error}")
        else:
            trainings += [] if training is None else [training]
    return trainings, left_out


def _read_training(path: Path, nested: bool) -> Training | None:
    """Training of a log; None for an empty one. ``nested``: the log lies in the folder of a run.

    Raises OSError, and ValueError for settings of another version.
    """
    config = Config.read(path.parent / CONFIG)
    log = read_log(path)
    if log.warning:
        show(log.warning, err=True)
    if not log.lines:
        return None
    lines: Sequence[Mapping[str, Any]] = log.lines
    columns = {
        name: np.array([line[name] for line in lines], dtype=np.float64) for name in _COLUMNS
    }
    in_curriculum = nested and path.parent.name == FIRST_STAGE
    across_views = config.task == "avsa" or config.clip.views > 1 or in_curriculum
    network = describe_settings(config, config.model.transformer and across_views)
    title = "AVC of a curriculum" if in_curriculum else config.title
    slots = config.clip.moments if config.task == "avts" else config.clip.views
    name, folder = name_network(network).architecture, str(path.parent)
    return Training(title, name, config.digest, config.seed, folder, slots, columns)


def draw_report(lines: Sequence[Line], trainings: Sequence[Training], path: Path) -> None:
    """Draw results and training curves on one page; results alone if there is no log."""
    heights = [_results_height(lines)] + [_curves_height(trainings)] * bool(trainings)
    figure = _figure(sum(heights), _WIDTH_INCHES if trainings else _results_width(lines))
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _plot_results(parts[0], lines)
    if trainings:
        _plot_curves(parts[1], trainings)
    _save(figure, path)


def draw_results(lines: Sequence[Line], path: Path) -> None:
    """Draw the first metric of each task, one row per network."""
    figure = _figure(_results_height(lines), _results_width(lines))
    _plot_results(figure, lines)
    _save(figure, path)


def draw_curves(trainings: Sequence[Training], path: Path) -> None:
    """Draw loss and accuracies over the steps, one row of panels per pretraining."""
    figure = _figure(_curves_height(trainings), _WIDTH_INCHES)
    _plot_curves(figure, trainings)
    _save(figure, path)


def _figure(height: float, width: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=110)


def _panels(lines: Sequence[Line]) -> dict[tuple[str, int, str], list[Line]]:
    panels: defaultdict[tuple[str, int, str], list[Line]] = defaultdict(list)
    for line in lines:
        if line.first:
            panels[line.task, line.views, line.variant].append(line)
    return dict(panels)


def _network_rows(lines: Sequence[Line]) -> dict[tuple[Any, ...], str]:
    """Label of each network by its row key, sorted."""
    return dict(sorted((_row_key(line), line.name.label) for line in lines))


def _row_key(line: Line) -> tuple[Any, ...]:
    return (*network_order(line), line.name.label)


def _results_height(lines: Sequence[Line]) -> float:
    panel_rows = -(-len(_panels(lines)) // PANELS_A_ROW)
    return 0.5 + panel_rows * (ROW_INCHES * len(_network_rows(lines)) + HEAD_INCHES)


def _results_width(lines: Sequence[Line]) -> float:
    return _WIDTH_INCHES - 2.6 * (PANELS_A_ROW - min(PANELS_A_ROW, len(_panels(lines))))


def _plot_results(figure: Any, lines: Sequence[Line]) -> None:
    panels, networks = _panels(lines), list(_network_rows(lines).items())
    place = {row: number for number, (row, _) in enumerate(networks)}
    kinds = list(dict.fromkeys(row[:2] for row, _ in networks))
    columns = min(PANELS_A_ROW, len(panels))
    rows = -(-len(panels) // columns)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for number, ((task, views, variant), shown) in enumerate(panels.items()):
        panel = axes.flat[number]
        line = shown[0]
        unit = f" ({line.unit})" if line.unit else ""
        better = "" if line.better == "higher" else ", lower is better"
        words = [task, f"{views} view{'s' * (views > 1)}", *([variant] if variant else [])]
        panel.set_title(drawable(", ".join(words)), fontsize=9)
        panel.set_xlabel(drawable(f"{line.metric}{unit}{better}"), fontsize=9)
        factor = 100 if line.unit == "%" else 1
        for chance in {line.chance for line in shown if line.chance is not None}:
            panel.axvline(factor * chance, color="black", linestyle=":", linewidth=1)
        for line in shown:
            row = _row_key(line)
            colour = UNTRAINED_COLOUR if line.untrained else f"C{kinds.index(row[:2]) % 10}"
            _plot_line(panel, line, place[row], colour, factor)
        _separate_kinds(panel, [row[:2] for row, _ in networks])
        panel.grid(axis="x", color="0.9")
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=8, left=False)
    for panel in axes.flat[len(panels) :]:
        panel.set_visible(False)
    # The panels share the axis: it is set once.
    names = [drawable(name) for _, name in networks]
    axes[0, 0].set_yticks(range(len(networks)), names, fontsize=8)
    axes[0, 0].set_ylim(len(networks) - 0.4, -0.6)
    letters = int(13 * figure.bbox.width / figure.dpi)
    figure.supxlabel(textwrap.fill(HOW_TO_READ, letters), fontsize=8, x=0.01, ha="left")


def _plot_line(panel: Any, line: Line, y: int, colour: str, factor: float) -> None:
    for interval, width, alpha in ((line.over_sources, 1, 1.0), (line.over_seeds, 5, 0.35)):
        if interval is not None:
            ends = [factor * end for end in interval]
            panel.plot(ends, [y, y], color=colour, linewidth=width, alpha=alpha, zorder=2)
    seeds = [factor * value for value in line.by_seed.values()]
    panel.plot(seeds, [y] * len(seeds), "|", color=colour, markersize=5, zorder=3)
    face, marker = ("white", "s") if line.untrained else (colour, "o")
    panel.plot(factor * line.mean, y, marker, color=colour, mfc=face, markersize=5, zorder=4)


def _separate_kinds(panel: Any, kinds: list[Any]) -> None:
    for number in range(1, len(kinds)):
        if kinds[number] != kinds[number - 1]:
            panel.axhline(number - 0.5, color="0.8", linewidth=0.8)


def _by_pretraining(trainings: Sequence[Training]) -> dict[str, list[Training]]:
    kinds: defaultdict[str, list[Training]] = defaultdict(list)
    for training in trainings:
        kinds[training.pretraining].append(training)
    return dict(sorted(kinds.items()))


def _curves_height(trainings: Sequence[Training]) -> float:
    return 0.5 + CURVES_INCHES * len(_by_pretraining(trainings))


def _plot_curves(figure: Any, trainings: Sequence[Training]) -> None:
    kinds = _by_pretraining(trainings)
    axes = figure.subplots(len(kinds), len(_COLUMNS), squeeze=False)
    for row, (kind, trainings_of_kind) in zip(axes, kinds.items(), strict=True):
        alike: defaultdict[tuple[str, str], list[Training]] = defaultdict(list)
        for training in trainings_of_kind:
            alike[training.name, training.digest].append(training)
        top = os.path.commonpath([Path(training.folder).parent for training in trainings_of_kind])
        for column, (panel, (name, label)) in enumerate(zip(row, _COLUMNS.items(), strict=True)):
            for number, ((words, _), seeds) in enumerate(sorted(alike.items())):
                text = f"{words}, {len(seeds)} seed{'s' * (len(seeds) > 1)}"
                if sum(words == other for other, _ in alike) > 1:
                    text += f" ({os.path.relpath(seeds[0].folder, top)})"
                _plot_curve(panel, [seed.columns[name] for seed in seeds], f"C{number % 10}", text)
            if name != "loss":
                panel.set_ylim(0, 1)
            slots = {training.slots for training in trainings_of_kind} - {1}
            if name == "view_accuracy":
                for count in slots:
                    panel.axhline(1 / count, color="black", linestyle=":", linewidth=1)
                if not slots:
                    panel.set_visible(False)
            title = f"{drawable(kind)}: {label}" if column == 0 else label
            panel.set_title(title, fontsize=10)
            panel.set_xlabel("step", fontsize=9)
            panel.tick_params(labelsize=8)
        row[1].legend(fontsize=7, loc="best", framealpha=0.7)  # accuracies leave it room
    figure.supxlabel(
        "Running means; bands: from the lowest to the highest seed; dotted: chance.",
        fontsize=8,
        x=0.01,
        ha="left",
    )


def _plot_curve(panel: Any, seeds: list[NDArray[np.float64]], colour: str, label: str) -> None:
    steps = min(map(len, seeds))
    width = max(1, steps // 50)
    window = np.ones(width) / width
    smooth = np.array([np.convolve(seed[:steps], window, mode="valid") for seed in seeds])
    at = np.arange(width, steps + 1)
    panel.plot(at, smooth.mean(axis=0), color=colour, linewidth=1.2, label=drawable(label))
    if len(seeds) > 1:
        panel.fill_between(at, smooth.min(axis=0), smooth.max(axis=0), color=colour, alpha=0.2)
