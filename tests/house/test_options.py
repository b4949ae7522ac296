"""Every numeric option of both commands has a range with two ends, in which NaN is not."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from avprep.cli.choices import Number as PrepNumber
from avprep.cli.main import main as avprep
from avtrain.cli.common import Names
from avtrain.cli.common import Number as TrainNumber
from avtrain.cli.main import main as avtrain

ABSURD = ["nan", "inf", "-inf", "1e308", "1e400", "-1e400", str(10**30), str(-(10**30)), "9" * 5000]
ABSURD += ["1:nan", "nan:1", "1e400:1e400", "9" * 400 + "MB", "0"]
MAY_BE_ZERO = {
    "transformer-warmup",
    "seed",
    "workers",
    "task-index",
    "video-track",
    "audio-track",
    "num-workers",
}
MAY_BE_ZERO |= {"min-separation", "drop-silent", "drop-static", "drop-mono", "at", "margin"}
MAY_BE_ZERO |= {"dropout", "max-faults", "folds", "start"}
TEXT = click.Path | click.Choice | Names


def commands(
    command: click.Command, *names: str
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, *names, name)
    else:
        yield names, command


OPTIONS = [
    (main, names, command, option)
    for main in (avprep, avtrain)
    for names, command in commands(main)
    for option in command.params
    if isinstance(option, click.Option) and not option.is_flag
    if not isinstance(option.type, TEXT)
]


def is_number(option: click.Option) -> bool:
    """Compound values such as MIN:MAX are read by the option's callback."""
    return option.type is not click.STRING or option.callback is not None


@pytest.mark.parametrize(
    ("main", "names", "command", "option"),
    [
        pytest.param(*one, id=f"{one[1][-1]} {one[3].opts[0]}")
        for one in OPTIONS
        if is_number(one[3])
    ],
)
def test_absurd_numbers_are_refused_by_the_option(
    main: click.Group, names: tuple[str, ...], command: click.Command, option: click.Option
) -> None:
    name = max(option.opts, key=len)
    needed = [
        word
        for other in command.params
        if other.required and other is not option
        for word in ((other.opts[0], "x") if isinstance(other, click.Option) else ("x",))
    ]
    for value in ABSURD:
        if value == "0" and name.strip("-") in MAY_BE_ZERO:
            continue
        result = CliRunner().invoke(main, [*names, *needed, f"{name}={value}"])
        assert result.exit_code == 2, (value, result.output, result.exception)
        assert "Invalid value for" in result.output, (value, result.output)
        assert any(one in result.output for one in option.opts)
        assert len(result.output) < 20_000


def test_ranges_have_two_ends() -> None:
    for _, names, _, option in OPTIONS:
        kind = option.type
        if kind is click.STRING:
            continue
        assert isinstance(kind, click.IntRange | PrepNumber | TrainNumber), (names, option.name)
        assert kind.min is not None, (names, option.name)
        assert kind.max is not None, (names, option.name)


def test_text_that_is_no_number_has_no_default_that_is_one() -> None:
    """A numeric option without a type would be text."""
    for _, names, _, option in OPTIONS:
        if not is_number(option):
            assert option.name in {"out", "split", "train_split", "test_split", "scheduler"} | {
                *("checkpoint", "viewpoints", "test_dir", "video_network", "audio_network"),
                *("projection", "stereo", "foa_convention"),  # avprep checks them
            }, names
