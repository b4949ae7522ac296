"""Arguments and options that the evaluations share, and how their results are printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import click

from avtrain.cli.common import AUDIO, FEATURES, SEED, UP_TO_1000, WORKERS
from avtrain.cli.network_options import factories_of, named_networks, network_options
from shards.errors import show

if TYPE_CHECKING:  # importing torch takes seconds, which --help should not
    from avtrain.config import Config
    from avtrain.evals.evaluation import EvaluationOptions
    from avtrain.evals.results import Result
    from avtrain.own_networks import Factories

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class EvaluationArguments:
    """Values of `evaluation_options`, by name. ``takes_energy``: whether the evaluation makes sense
    of features without a network."""

    takes_energy: ClassVar[bool] = False
    folder: str
    checkpoint: str
    out: Path
    baseline: bool
    preset: str | None
    features: str | None
    audio: str | None
    train_split: str
    test_split: str
    num_workers: int | None
    device: str
    seed: int
    video_network: str | None
    audio_network: str | None
    network_options: Path | None

    def evaluation(self) -> EvaluationOptions:
        """Options of every evaluation. Raises TrainingError for options that exclude each other."""
        from avtrain.evals.evaluation import EvaluationOptions

        energy = self.takes_energy and self.checkpoint == "energy"
        checkpoint, config = (
            (None, self._energy_config())
            if energy
            else read_networks(
                self.checkpoint, self.preset, self.features, self.audio, self.factories
            )
        )
        return EvaluationOptions(
            root=self.folder,
            config=config,
            out=self.out,
            checkpoint=checkpoint,
            train_split=self.train_split,
            test_split=self.test_split,
            seed=self.seed,
            device=self.device,
            workers=self.num_workers,
            energy=energy,
            factories=self.factories,
        )

    @cached_property
    def factories(self) -> Factories:
        """Functions that make the user's own networks."""
        return factories_of(self.video_network, self.audio_network, self.network_options)

    def _energy_config(self) -> Config:
        """Inputs of the energy map. Raises TrainingError for settings of networks."""
        from avtrain.config import PRESETS
        from avtrain.errors import TrainingError
        from avtrain.options import with_options

        own = self.video_network or self.audio_network or self.network_options
        if self.features is not None or self.audio is not None or own:
            raise TrainingError(
                "--checkpoint energy has levels and intensities of ambisonics and no networks; "
                "leave --features, --audio and options of networks out"
            )
        return with_options(
            PRESETS[self.preset or "tiny"]("avsa"), features="logmel+intensity", intensity_gain=1.0
        )

    def is_paper(self, config: Config) -> bool:
        """Whether the protocol is the paper's, as asked for or as the networks' preset."""
        return (self.preset or config.preset) == "paper"


@dataclass(frozen=True, kw_only=True)
class WindowArguments(EvaluationArguments):
    """Values of `evaluation_options` and `window_options`."""

    takes_energy: ClassVar[bool] = True
    views: int
    windows: int
    keep_features: Path | None


def evaluation_options(command: _Command) -> _Command:
    """Decorate a command with the options of every evaluation."""
    options = [
        click.argument("folder", metavar="DIR"),
        click.option(
            "--checkpoint",
            required=True,
            help="A checkpoint.pt, 'untrained' for random networks, or 'energy' ('none' "
            "in seld) for features without a network (not for action, segmentation).",
        ),
        click.option(
            "--out",
            required=True,
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder of the result; an earlier one there is replaced.",
        ),
        click.option(
            "--baseline/--no-baseline",
            default=True,
            help="Evaluate random networks as well, for comparison.",
        ),
        click.option(
            "--preset",
            type=click.Choice(["tiny", "paper"]),
            help="Protocol, and networks if untrained.  [default: the checkpoint's, or tiny]",
        ),
        click.option("--features", type=FEATURES, help="If untrained.  [default: logmel]"),
        click.option("--audio", type=AUDIO, help="If untrained.  [default: foa]"),
        click.option("--train-split", default="train", help="Split to learn from."),
        click.option("--test-split", default="test", help="Split to test on."),
        click.option("--num-workers", type=WORKERS, help="Loader processes.  [default: auto]"),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto"),
        click.option("--seed", type=SEED, default=0),
        named_networks,
        network_options,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def window_options(views_help: str) -> Callable[[_Command], _Command]:
    """Decorate a command with the options of evaluations of frozen features in windows."""

    def decorate(command: _Command) -> _Command:
        options = [
            click.option("--views", type=UP_TO_1000, default=4, help=views_help),
            click.option("--windows", type=UP_TO_1000, default=5, help="Windows per test clip."),
            click.option(
                "--keep-features",
                type=click.Path(path_type=Path, file_okay=False),
                metavar="DIR",
                help="Keep the features of the frozen networks in DIR, and read those that are "
                "there: shared by avc, avsa, retrieval, locate, localization and probe of the same "
                "networks, set and seed.",
            ),
        ]
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def read_networks(
    checkpoint: str,
    preset: str | None,
    features: str | None,
    audio: str | None,
    factories: Factories,
) -> tuple[Path | None, Config]:
    """File and settings of the checkpoint; for random networks None and their settings.

    Raises TrainingError for settings that only random networks can be given, and for ``energy``.
    """
    from avtrain.checkpoint import Checkpoint
    from avtrain.config import PRESETS
    from avtrain.errors import TrainingError
    from avtrain.options import with_options
    from avtrain.own_networks import check_named, record_networks

    if checkpoint == "energy":
        raise TrainingError(
            "--checkpoint energy has features of a view's audio and video, but no network, which "
            "this command needs; name a checkpoint.pt, or 'untrained'"
        )
    if checkpoint == "untrained":
        config = PRESETS[preset or "tiny"]("avsa")
        config = with_options(config, features=features, audio=audio)
        return None, record_networks(config, factories)
    for name, value in (("features", features), ("audio", audio)):
        if value is not None:
            raise TrainingError(f"--{name} is the checkpoint's; leave the option out")
    if factories.options:
        raise TrainingError("the checkpoint holds its network options; leave --network-options out")
    path = Path(checkpoint)
    config = Checkpoint.load(path).settings()
    check_named(config, factories, path)
    return path, config


def print_results(results: Sequence[Result], table: str | None = None) -> None:
    """Print the ``table`` (default: one row for each metric), and the clips that were left out; if
    there are any, exit with status 1."""
    from avtrain.evals.results import LEARNED_FROM
    from avtrain.evals.tables import results_table

    show(*(results_table(results) if table is None else table).splitlines())
    if known := results[-1].details.get(LEARNED_FROM):
        show(
            f"warning: {known} of the test's recordings are in the training split too, so that "
            "the result also counts what was memorised",
            err=True,
        )
    left_out = list(dict.fromkeys(fault for result in results for fault in result.left_out))
    for fault in left_out:
        show(f"left out: {fault}", err=True)
    if left_out:
        click.get_current_context().exit(1)
