"""Many results as one table: runs that differ in the seed alone are one line."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from avtrain.evals.results import Network, Result
from avtrain.evals.tables import in_words, markdown, network_cells
from shards.files import dump_json, write_atomic

Interval = tuple[float, float]
PAGE, NUMBERS, FIGURES = "report.md", "report.json", "report.png"
# Student's t beyond which 2.5 % lie, for 1, 2, … degrees of freedom: of few seeds the interval is
# much wider than a normal distribution's.
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_T_975_BEYOND = 2.2
NOTE = """\
`over sources`: the 95 % interval by bootstrap over the test recordings, its ends averaged over the
seeds; it says how much the choice of recordings matters. `over seeds`: the 95 % interval of the
mean by Student's t from three seeds on, the range of two; it says how much the pretraining's luck
matters. Neither holds the other."""


@dataclass(frozen=True)
class Line:
    """One metric of one network in one test, over all its seeds; ``first``: it is the task's first
    metric. ``mark`` and ``variant`` tell apart networks and tests that look the same otherwise."""

    task: str
    variant: str
    network: Network
    mark: str
    views: int
    metric: str
    first: bool
    unit: str
    better: str
    chance: float | None
    by_seed: dict[int, float]
    over_sources: Interval | None
    test_clips: int
    test_sources: int

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.by_seed.values())))

    @property
    def over_seeds(self) -> Interval | None:
        """See `over_seeds`."""
        return over_seeds(list(self.by_seed.values()))

    @property
    def untrained(self) -> bool:
        return self.network.checkpoint is None

    @property
    def name(self) -> str:
        """Of the network, in a few words."""
        cells = network_cells(self.network)
        kind = "untrained" if self.untrained else self.network.pretraining
        words = [f"{kind}: {cells['features']}"]
        if self.network.transformer:
            words.append("transformer" + ", norm first" * self.network.norm_first)
        if self.network.positions != "none" and self.network.transformer:
            words.append("positions")
        return ", ".join(words) + (f" ({self.mark})" if self.mark else "")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {
            "mean": self.mean,
            "seeds": len(self.by_seed),
            "over_seeds": self.over_seeds,
            "over_seeds_is": "range" if len(self.by_seed) < 3 else "95 % interval, Student's t",
        }


def over_seeds(values: Sequence[float]) -> Interval | None:
    """The 95 % interval of the mean from three values on, the range of two, None for one."""
    count = len(values)
    if count < 3:
        return (min(values), max(values)) if count == 2 else None
    t = _T_975[count - 2] if count - 2 < len(_T_975) else _T_975_BEYOND
    half = t * float(np.std(values, ddof=1)) / count**0.5
    mean = float(np.mean(values))
    return mean - half, mean + half


def lines_of(results: Sequence[Result]) -> list[Line]:
    """By task, views, metric and network. Results of one seed twice (as of random networks, which
    stand beside every checkpoint) count once, with their mean."""
    results = _with_their_transformers(results)
    groups: defaultdict[tuple[Any, ...], list[Result]] = defaultdict(list)
    for result in results:
        test = (result.task, result.views, result.data, json.dumps(result.test, sort_keys=True))
        groups[_network(result), test].append(result)
    marks = _marks(result.network for result in results)
    tests: defaultdict[tuple[str, int], list[tuple[Any, ...]]] = defaultdict(list)
    for _, test in groups:
        if test not in tests[test[:2]]:
            tests[test[:2]].append(test)
    lines = [
        _line(group, name, marks[network], _said(test, tests[test[:2]]))
        for (network, test), group in groups.items()
        for name in group[0].metrics
    ]
    places: dict[tuple[str, str], int] = {}
    for line in lines:
        places.setdefault((line.task, line.metric), len(places))
    return sorted(
        lines,
        key=lambda line: (
            *(line.task, line.views, line.variant, places[line.task, line.metric]),
            *order_of(line),
        ),
    )


def order_of(line: Line) -> tuple[Any, ...]:
    """Random networks, AVC, AVTS, AVSA, curricula."""
    network = line.network
    first = network.pretraining.replace(",", "").split()[0]
    known = ("none", "AVC", "AVTS", "AVSA")
    rank = known.index(first) if first in known else len(known)
    features = (network.features, network.audio)
    transformer = (network.transformer, network.norm_first)
    return rank, network.pretraining, features, transformer, network.steps, line.mark


def _with_their_transformers(results: Sequence[Result]) -> list[Result]:
    """A test may leave out a network's transformers; it is the same network in all tests."""
    trained = {result.network.settings for result in results if result.network.transformer} - {""}
    return [
        replace(result, network=replace(result.network, transformer=True))
        if result.network.settings in trained
        else result
        for result in results
    ]


def _network(result: Result) -> tuple[Network, bool]:
    """Equal for networks that differ in the seed alone."""
    return _unseeded(result.network), result.network.checkpoint is not None


def _unseeded(network: Network) -> Network:
    network = replace(network, seed=0, checkpoint=None, weights="")
    # Nothing of transformers matters where there are none.
    return network if network.transformer else replace(network, positions="none", norm_first=False)


def _marks(networks: Iterable[Network]) -> dict[tuple[Network, bool], str]:
    """Where different networks have the same columns, the folder of their first checkpoint."""
    alike: defaultdict[tuple[str, ...], dict[tuple[Network, bool], str]] = defaultdict(dict)
    for network in sorted(networks, key=lambda network: network.seed):
        trained = network.checkpoint
        folder = f"preset {network.preset}" if trained is None else str(Path(trained).parent)
        kind = (_unseeded(network), network.checkpoint is not None)
        alike[(*network_cells(network).values(), network.positions)].setdefault(kind, folder)
    return {
        kind: folder if len(kinds) > 1 else ""
        for kinds in alike.values()
        for kind, folder in kinds.items()
    }


def _said(test: tuple[Any, ...], tests: list[tuple[Any, ...]]) -> str:
    """What tells a test from others of its task and views: its set, and what else differs."""
    words = []
    if len({data for _, _, data, _ in tests}) > 1:
        words.append(f"set {test[2][:8]}")
    settings = [_flat(json.loads(setting)) for _, _, _, setting in tests]
    names = dict.fromkeys(name for setting in settings for name in setting)
    mine = settings[tests.index(test)]
    for name in names:
        if len({str(setting.get(name)) for setting in settings}) > 1:
            words.append(f"{name} {mine.get(name, '-')}")
    return ", ".join(words)


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """By the last names of all that is in them."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value) if isinstance(value, dict) else {name.replace("_", " "): value}
    return flat


def _line(group: list[Result], name: str, mark: str, variant: str) -> Line:
    values: defaultdict[int, list[float]] = defaultdict(list)
    for result in group:
        values[result.network.seed].append(result.metrics[name].value)
    intervals = [result.metrics[name].interval_95 for result in group]
    known = [interval for interval in intervals if interval is not None]
    low, high = np.mean(known, axis=0).tolist() if known else (0.0, 0.0)
    first = min(group, key=lambda result: result.network.seed)
    metric = first.metrics[name]
    return Line(
        task=first.task,
        variant=variant,
        network=first.network,
        mark=mark,
        views=first.views,
        metric=name,
        first=name == next(iter(first.metrics)),
        unit=metric.unit,
        better=metric.better,
        chance=metric.chance,
        by_seed={seed: float(np.mean(values[seed])) for seed in sorted(values)},
        over_sources=(low, high) if known else None,
        test_clips=first.test_clips,
        test_sources=first.test_sources,
    )


def as_markdown(lines: Sequence[Line]) -> str:
    """The table."""
    return markdown([_cells(line) for line in lines])


def _cells(line: Line) -> dict[str, str]:
    network = network_cells(line.network)
    if line.mark:
        network["pretraining"] += f" ({line.mark})"
    return {
        "task": line.task + (f" ({line.variant})" if line.variant else ""),
        **network,
        "views": str(line.views),
        "metric": line.metric if line.unit == "" else f"{line.metric} ({line.unit})",
        **value_cells(line),
        "chance": "-" if line.chance is None else in_words(line.chance, line.unit),
        "test clips": str(line.test_clips),
        "sources": str(line.test_sources),
    }


def value_cells(line: Line) -> dict[str, str]:
    """The columns of the mean, its intervals and the number of seeds."""
    seeds = interval_in_words(line.over_seeds, line.unit)
    return {
        "mean": in_words(line.mean, line.unit),
        "over sources": interval_in_words(line.over_sources, line.unit),
        "over seeds": seeds + " (range)" * (len(line.by_seed) == 2),
        "seeds": str(len(line.by_seed)),
    }


def interval_in_words(interval: Interval | None, unit: str) -> str:
    if interval is None:
        return "-"
    return " to ".join(in_words(value, unit) for value in interval)


def write_numbers(lines: Sequence[Line], path: Path) -> None:
    """The lines with all their numbers, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, dump_json({"lines": [line.to_dict() for line in lines]}, indent=2))


def write_report(lines: Sequence[Line], runs: Sequence[Path], out: Path) -> None:
    """The table, its numbers, and a page of figures with the runs' training curves.

    Raises TrainingError for a log that cannot be read.
    """
    from avtrain.report.figures import draw_report, read_trainings  # they import matplotlib, torch

    trainings = read_trainings(runs)
    write_numbers(lines, out / NUMBERS)
    draw_report(lines, trainings, out / FIGURES)
    text = f"# Results\n\n{as_markdown(lines)}\n\n{NOTE}\n\n![Results and training]({FIGURES})\n"
    write_atomic(out / PAGE, text.encode())
