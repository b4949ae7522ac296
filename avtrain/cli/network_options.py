"""Options for networks of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from avtrain.cli.yaml_file import read_yaml

if TYPE_CHECKING:  # importing torch takes seconds, which --help should not
    from avtrain.own_networks import Factories

_Command = TypeVar("_Command", bound=Callable[..., Any])


def named_networks(command: _Command) -> _Command:
    """Decorate a command with the names of the functions that make networks."""
    for modality in ("audio", "video"):
        command = click.option(
            f"--{modality}-network",
            metavar="MODULE:FUNCTION",
            help=f"Your own {modality} network: the function that makes it.  "
            "[default: the paper's network]",
        )(command)
    return command


network_options = click.option(
    "--network-options",
    type=click.Path(path_type=Path, dir_okay=False),
    help="YAML file with keyword arguments for these functions, below video: and audio:.",
)


def factories_of(
    video_network: str | None, audio_network: str | None, options: Path | None = None
) -> Factories:
    """The functions that the options name. Raises TrainingError for a file of options that cannot
    be read."""
    from avtrain.errors import TrainingError
    from avtrain.networks.models import Option
    from avtrain.own_networks import MODALITIES, Factories

    given = {} if options is None else read_yaml(options, dict[str, dict[str, Option] | None])
    if unknown := given.keys() - {*MODALITIES}:
        raise TrainingError(
            f"{options} has options for {min(unknown)}; there are networks for video and audio"
        )
    by_modality = {modality: values or {} for modality, values in given.items()}
    return Factories(video_network, audio_network, by_modality)
