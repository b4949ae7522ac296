"""What all commands share: options as a dataclass, and errors as one sentence."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import click

UP_TO_1000 = click.IntRange(1, 1000)
WORKERS = click.IntRange(0, 4096)
SEED = click.IntRange(0, 2**48)  # evaluations multiply it
FEATURES = click.Choice(["logmel", "logmel+intensity"])
AUDIO = click.Choice(["foa", "omni", "mono", "stereo"])
_Options = TypeVar("_Options")


class Number(click.FloatRange):
    """A number in a range that has both ends; NaN, which click's own type takes, is in none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


class Names(click.ParamType[tuple[str, ...]]):
    """Some of a few names, separated by commas."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.name = f"[{','.join(names)}]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        found = tuple(dict.fromkeys(str(value).split(",")))
        for one in found:
            if one not in self.names:
                self.fail(f"{one!r} is not one of {', '.join(self.names)}.", param, ctx)
        return found


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
    """Turn errors that a user can correct into one sentence and exit status 2."""
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
                f"a loader process has ended ({str(error).splitlines()[0]:.150}); if memory is "
                "short, lower --num-workers"
            ) from None
        if type(error).__name__ != "OutOfMemoryError":  # torch's; nothing here imports it
            raise
        raise UserErrorExit(
            "the device is out of memory; lower --batch-size, raise --pieces, or add --bf16 "
            "(`avtrain pretrain --dry-run` estimates what is needed)"
        ) from None
