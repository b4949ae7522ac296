"""Lines of a report: the results of networks that differ only in their seed are one line."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from avtrain.evals.results import ENERGY, UNTRAINED, Network, Result
from avtrain.evals.tables import NetworkName, name_network

Interval = tuple[float, float]
# 97.5th percentile of Student's t for 1, 2, … degrees of freedom: for few seeds the interval is
# much wider than that of a normal distribution.
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_T_975_BEYOND = 2.2


@dataclass(frozen=True)
class Line:
    """One metric of one network in one test, over all its seeds. ``first``: the first metric of the
    task. ``mark`` and ``variant`` tell apart networks and tests with otherwise equal names."""

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
        """Mean over the seeds."""
        return float(np.mean(list(self.by_seed.values())))

    @property
    def over_seeds(self) -> Interval | None:
        """See `over_seeds`."""
        return over_seeds(list(self.by_seed.values()))

    @property
    def untrained(self) -> bool:
        """Whether the networks are random."""
        return self.network.kind == UNTRAINED

    @property
    def name(self) -> NetworkName:
        """Words for the network."""
        return name_network(self.network, self.mark)

    def to_dict(self) -> dict[str, Any]:
        """All fields and what follows from them, for JSON."""
        return asdict(self) | {
            "mean": self.mean,
            "seeds": len(self.by_seed),
            "over_seeds": self.over_seeds,
            "over_seeds_is": "range" if len(self.by_seed) < 3 else "95 % interval, Student's t",
        }


def over_seeds(values: Sequence[float]) -> Interval | None:
    """95 % interval of the mean from three values on, the range of two, None for one."""
    count = len(values)
    if count < 3:
        return (min(values), max(values)) if count == 2 else None
    t = _T_975[count - 2] if count - 2 < len(_T_975) else _T_975_BEYOND
    half = t * float(np.std(values, ddof=1)) / count**0.5
    mean = float(np.mean(values))
    return mean - half, mean + half


def make_lines(results: Sequence[Result]) -> list[Line]:
    """Lines sorted by task, views, test, metric and network.

    Several results of the same seed count once, with their mean: random networks are evaluated
    beside every checkpoint.
    """
    results = _restore_transformers(results)
    groups: defaultdict[tuple[Any, ...], list[Result]] = defaultdict(list)
    for result in results:
        test = (result.task, result.views, result.data, json.dumps(result.test, sort_keys=True))
        groups[_network_key(result.network), test].append(result)
    marks = _marks(result.network for result in results)
    tests: defaultdict[tuple[str, int], list[tuple[Any, ...]]] = defaultdict(list)
    for _, test in groups:
        if test not in tests[test[:2]]:
            tests[test[:2]].append(test)
    lines = [
        _line(group, name, marks[network], _describe_test(test, tests[test[:2]]))
        for (network, test), group in groups.items()
        for name in dict.fromkeys(name for result in group for name in result.metrics)
    ]
    order: dict[tuple[str, str], int] = {}
    for line in lines:
        order.setdefault((line.task, line.metric), len(order))
    return sorted(
        lines,
        key=lambda line: (
            *(line.task, line.views, line.variant, order[line.task, line.metric]),
            *network_order(line),
        ),
    )


def network_order(line: Line) -> tuple[Any, ...]:
    """Sort key of the network: random networks, the energy map, AVC, AVTS, AVSA, curricula."""
    network = line.network
    first = network.pretraining.replace(",", " ").partition(" ")[0]
    known = ("none", ENERGY, "AVC", "AVTS", "AVSA")
    rank = known.index(first) if first in known else len(known)
    features = (network.features, network.audio)
    transformer = (network.transformer, network.norm_first, network.positions == "relative")
    return rank, network.pretraining, features, transformer, network.steps, line.mark


def _restore_transformers(results: Sequence[Result]) -> list[Result]:
    """Results whose networks have transformers wherever other results of the same settings have:
    some tests do not use them, and it is the same network all the same."""
    trained = {result.network.settings for result in results if result.network.transformer} - {""}
    return [
        replace(result, network=replace(result.network, transformer=True))
        if result.network.settings in trained
        else result
        for result in results
    ]


def _network_key(network: Network) -> tuple[Network, bool]:
    """Equal for networks that differ only in their seed."""
    trained = network.checkpoint is not None
    network = replace(network, seed=0, checkpoint=None, weights="")
    if not network.transformer:  # their settings do not matter then
        network = replace(network, positions="none", norm_first=False)
    return network, trained


def _marks(networks: Iterable[Network]) -> dict[tuple[Network, bool], str]:
    """Mark of each network: empty, or the folder of its first checkpoint where several networks
    have the same name."""
    alike: defaultdict[NetworkName, dict[tuple[Network, bool], str]] = defaultdict(dict)
    for network in sorted(networks, key=lambda network: network.seed):
        path = network.checkpoint
        folder = f"preset {network.preset}" if path is None else str(Path(path).parent)
        alike[name_network(network)].setdefault(_network_key(network), folder)
    return {
        key: folder if len(folders) > 1 else ""
        for folders in alike.values()
        for key, folder in folders.items()
    }


def _describe_test(test: tuple[Any, ...], tests: list[tuple[Any, ...]]) -> str:
    """Words that tell a test from others of its task and views: its set, and other differences."""
    words = []
    if len({data for _, _, data, _ in tests}) > 1:
        words.append(f"set {test[2][:8]}")
    settings = [_flatten(json.loads(setting)) for _, _, _, setting in tests]
    names = dict.fromkeys(name for setting in settings for name in setting)
    mine = settings[tests.index(test)]
    for name in names:
        if len({str(setting.get(name)) for setting in settings}) > 1:
            words.append(f"{name} {mine.get(name, '-')}")
    return ", ".join(words)


def _flatten(settings: dict[str, Any]) -> dict[str, Any]:
    """All values in nested settings, by their last names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flatten(value) if isinstance(value, dict) else {name.replace("_", " "): value}
    return flat


def _line(group: list[Result], name: str, mark: str, variant: str) -> Line:
    # Results of another version, or of clips that do not show it, may lack a metric.
    group = [result for result in group if name in result.metrics]
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
