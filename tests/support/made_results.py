"""Results as evaluations write them, with numbers of the test's choosing."""

from __future__ import annotations

from pathlib import Path

from avtrain.evals.results import Metric, Network, Result

FEATURES = ("log-mel", "log-mel + intensity")


def result(
    pretraining: str,
    value: float,
    seed: int = 0,
    task: str = "avsa-bin",
    features: str = FEATURES[0],
    transformer: bool = False,
    views: int = 4,
    settings: str | None = None,
) -> Result:
    """An evaluation's result with an accuracy and an angle.

    ``settings``: digest of the network's settings and folder of its runs.
    """
    trained = pretraining != "none"
    named = f"{pretraining}-{features}-{transformer}".replace(" ", "")
    network = Network(
        pretraining=pretraining,
        steps=2000 if trained else 0,
        features=features,
        audio="foa",
        transformer=transformer,
        positions="none",
        checkpoint=f"{settings or named}/{seed}/checkpoint.pt" if trained else None,
        data="d" if trained else None,
        preset="tiny",
        seed=seed,
        settings=(named if settings is None else settings) if trained else "",
        weights=f"seed {seed}" if trained else "",
    )
    metrics = {
        "accuracy": Metric(value, (value - 0.04, value + 0.04), 0.5),
        "error": Metric(90 * (1 - value), None, 90.0, "°", "lower"),
    }
    # The seed of the evaluation is not that of the network.
    return Result(task, network, metrics, views, 0, 40, 10, "set", {}, {"windows": 5})


def write(results: list[Result], root: Path) -> list[Path]:
    folders = [root / f"{number:03d}" for number in range(len(results))]
    for one, folder in zip(results, folders, strict=True):
        one.write(folder)
    return folders
