"""The command ``avtrain``."""

from __future__ import annotations

import click

from avtrain.cli.embed import embed
from avtrain.cli.evaluate import evaluate
from avtrain.cli.evaluate_action import action
from avtrain.cli.evaluate_segmentation import segmentation
from avtrain.cli.evaluate_views import localization, retrieval
from avtrain.cli.import_checkpoint import import_checkpoint
from avtrain.cli.pretrain import pretrain
from avtrain.cli.report import report
from shards import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Learn from shards of 360° video with ambisonics, and measure what was learned."""


evaluate.add_command(segmentation)
evaluate.add_command(retrieval)
evaluate.add_command(localization)
evaluate.add_command(action)
main.add_command(pretrain)
main.add_command(evaluate)
main.add_command(report)
main.add_command(embed)
main.add_command(import_checkpoint)
for command in (main, *main.commands.values(), *evaluate.commands.values()):
    click.version_option(__version__, prog_name="avtrain")(command)
