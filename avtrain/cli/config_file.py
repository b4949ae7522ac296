"""`avtrain pretrain --config FILE`: options from a file, as if they stood before those given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import click

from avtrain.cli.common import one_sentence
from avtrain.cli.sets import parse_set
from avtrain.cli.yaml_file import read_yaml

NOT_IN_A_FILE = {"config", "help", "version", "video-network", "audio-network"}
"""A file that others may have written does not choose which code runs."""

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    expose_value=False,
    help="YAML file with options by their long names, such as batch-size: 12, or the config.json "
    "of another run; options given here win.",
)


class ConfiguredCommand(click.Command):
    """Reads the file that `config_option` names, and parses its options before the given ones."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        path = _find(args)
        if path is None:
            return super().parse_args(ctx, args)
        with one_sentence():
            found = [*_arguments(path, self, args)]
        try:  # alone, so that a mistake in the file is told from one on the command line
            names = ctx.help_option_names  # click keeps those of a command's first context
            alone = click.Context(self, info_name=ctx.info_name, help_option_names=names)
            super().parse_args(alone, [*found, "DIR"])
        except click.UsageError as error:
            raise click.UsageError(f"{path}: {error.format_message()}", ctx) from None
        return super().parse_args(ctx, [*found, *args])


def _find(args: list[str]) -> Path | None:
    """The file that the last --config names, if there is one."""
    path = None
    for position, word in enumerate(args):
        if word == "--":
            break
        if word.startswith("--config="):
            path = Path(word.partition("=")[2])
        elif word == "--config" and position + 1 < len(args):
            path = Path(args[position + 1])
    return path


def _arguments(path: Path, command: click.Command, args: list[str]) -> Iterator[str]:
    """The options in the file, as they are written on the command line."""
    from avtrain.errors import TrainingError

    content = read_yaml(path, dict[str, Any])
    options = [one for one in command.params if isinstance(one, click.Option)]
    if {"clip", "sound", "model"} <= content.keys():
        yield from _words_of_run(path, content, options, args)
        return
    by_name = {name: one for one in options for name in (*one.opts, *one.secondary_opts)}
    for key, value in content.items():
        name = f"--{key.replace('_', '-')}"
        if name.removeprefix("--") in NOT_IN_A_FILE:
            raise TrainingError(f"{path}: {key} is read from the command line alone")
        if name not in by_name:
            raise TrainingError(f"{path}: avtrain pretrain has no option {name}")
        yield from _words(path, name, value, by_name[name])


def _words(path: Path, name: str, value: Any, option: click.Option) -> Iterator[str]:
    from avtrain.errors import TrainingError

    if value is None:
        return
    if option.is_flag:
        if not isinstance(value, bool):
            raise TrainingError(f"{path}: {name} is true or false, not {value!r}")
        if value:
            yield name
        elif option.secondary_opts:
            yield (option.secondary_opts if name in option.opts else option.opts)[0]
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield f"{name}={value}"
    else:
        raise TrainingError(f"{path}: {name} takes one value, not {value!r}")


def _words_of_run(
    path: Path, content: dict[str, Any], options: Iterable[click.Option], args: list[str]
) -> Iterator[str]:
    """Options that give the settings of the run whose config.json ``content`` is. What they cannot
    give must be among ``args``."""
    from avtrain.config import Config
    from avtrain.errors import TrainingError
    from avtrain.options import options_of

    try:
        config = Config.from_dict(content)
        changes = cast(dict[str, Any], options_of(config))
    except (TrainingError, ValueError) as error:
        raise TrainingError(f"{path}: {error}") from None
    if config.weights and not any(parse_set(word)[1] for word in args):
        raise TrainingError(
            f"{path} is of a run on {len(config.weights)} sets with weights: name sets with weights"
        )
    needed = {"--init-from": config.begun_with if not config.curriculum else ""}
    for modality in ("video", "audio"):
        own = config.model.own(modality)
        if own is not None:
            needed[f"--{modality}-network"] = own.factory
            if own.options:
                needed["--network-options"] = f"the options of its {modality} network"
    for name, value in needed.items():
        if value and not any(word.partition("=")[0] == name for word in args):
            raise TrainingError(f"{path} is of a run with {value}: give {name} as well")
    yield from (f"--task={config.task}", f"--preset={config.preset}")
    for option in options:
        setting = changes.get(option.name or "")
        if setting is None:
            continue
        if not option.is_flag:
            yield f"{option.opts[0]}={setting}"
        elif setting is True or option.flag_value == setting or option.secondary_opts:
            yield (option.opts if setting else option.secondary_opts)[0]
