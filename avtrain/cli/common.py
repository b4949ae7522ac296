"""What the commands have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:  # importing torch takes seconds, which --help should not
    from avtrain.config import Config
    from avtrain.evals.results import Result

FEATURES = click.Choice(["logmel", "logmel+intensity"])
AUDIO = click.Choice(["foa", "mono", "stereo"])
_Command = TypeVar("_Command", bound=Callable[..., Any])
_Options = TypeVar("_Options")


def options_as(
    kind: Callable[..., _Options],
) -> Callable[[Callable[[_Options], None]], Callable[..., None]]:
    """Decorate a command so that it gets all its arguments and options as one dataclass ``kind``,
    whose fields have the parameters' names. Stands below the options."""

    def decorate(command: Callable[[_Options], None]) -> Callable[..., None]:
        @wraps(command)
        def called_by_click(**values: Any) -> None:
            command(kind(**values))

        return called_by_click

    return decorate


class UserErrorExit(click.ClickException):
    """A sentence for the user, and exit status 2."""

    exit_code = 2


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn what a user can mend into one sentence and exit status 2."""
    from avtrain.errors import TrainingError
    from shards.errors import ShardError

    try:
        yield
    except (TrainingError, ShardError) as error:
        # A loader worker's error arrives as the text of its traceback.
        message = str(error).strip()
        if "Traceback (most recent call last)" in message:
            message = re.split(r"(?m)^[\w.]*(?:Shard|Training)Error: ", message)[-1]
        raise UserErrorExit(message) from None
    except OSError as error:
        if error.strerror is None:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        raise UserErrorExit(f"{where}{error.strerror}") from None
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("avtrain", "shards"):
            raise
        raise UserErrorExit(
            f"{error.name} is not installed; `pip install 'avsa360[train]'` brings it"
        ) from None
    except KeyboardInterrupt:
        raise click.Abort from None
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            raise UserErrorExit(
                f"a loader process has ended ({str(error).splitlines()[0]:.150}); where memory is "
                "short, take fewer --num-workers"
            ) from None
        if type(error).__name__ != "OutOfMemoryError":  # torch's; nothing here imports it
            raise
        raise UserErrorExit(
            "the device's memory does not suffice; take a smaller --batch-size, or the same in "
            "more --pieces, or --bf16 (`avtrain pretrain --dry-run` estimates what is needed)"
        ) from None


def evaluate_all(
    out: Path, checkpoint: Path | None, baseline: bool, evaluate: Callable[[Path | None], Result]
) -> list[Result]:
    """That of random networks first, where there are to be any. ``evaluate`` takes a checkpoint, or
    None for random ones; it is asked for the checkpoint's before, which may not fit."""
    from avtrain.evals.progress import forget

    both = baseline and checkpoint is not None
    results = [evaluate(one) for one in ([checkpoint, None] if both else [checkpoint])]
    forget(out, results)
    return results[::-1]


def show(results: Sequence[Result]) -> None:
    """Print the table, and what was left out of the results; if anything was, the exit status
    is 1."""
    from avtrain.evals.results import LEARNED_FROM
    from avtrain.evals.tables import results_table

    click.echo(results_table(results))
    if known := results[-1].details.get(LEARNED_FROM):
        click.echo(
            f"warning: {known} of the test's recordings are in the training split too, so that "
            "what is known by heart counts as well",
            err=True,
        )
    left_out = list(dict.fromkeys(fault for result in results for fault in result.left_out))
    for fault in left_out:
        click.echo(f"left out: {fault}", err=True)
    if left_out:
        click.get_current_context().exit(1)


def evaluation_options(command: _Command) -> _Command:
    """Of all evaluations: DIR, which networks, where the result goes, splits and machine."""
    options = [
        click.argument("folder", metavar="DIR"),
        click.option(
            "--checkpoint",
            required=True,
            help="A checkpoint.pt, or 'untrained' for random networks.",
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
        click.option("--train-split", default="train"),
        click.option("--test-split", default="test"),
        click.option("--num-workers", type=click.IntRange(0), help="Loaders.  [default: auto]"),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto"),
        click.option("--seed", type=click.IntRange(0), default=0),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def networks_of(
    checkpoint: str, preset: str | None, features: str | None, audio: str | None
) -> tuple[Path | None, Config]:
    """The checkpoint's file and settings; of random networks the settings alone.

    Raises TrainingError.
    """
    from avtrain.checkpoint import Checkpoint
    from avtrain.config import PRESETS, with_options
    from avtrain.errors import TrainingError

    if checkpoint == "untrained":
        config = PRESETS[preset or "tiny"]("avsa")
        return None, with_options(config, features=features, audio=audio)
    for name, value in (("features", features), ("audio", audio)):
        if value is not None:
            raise TrainingError(f"--{name} is the checkpoint's; leave the option out")
    path = Path(checkpoint)
    return path, Checkpoint.load(path).settings(path)


keep_features = click.option(
    "--keep-features",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Keep the features of the frozen networks there, and take them from there: for several "
    "of avc, avsa, retrieval and localization, of the same networks, set and seed.",
)
