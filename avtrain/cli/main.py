"""The command ``avtrain``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from avtrain.cli.embed import embed
from avtrain.cli.evals.action import action
from avtrain.cli.evals.evaluate import evaluate
from avtrain.cli.evals.probe import probe
from avtrain.cli.evals.segmentation import segmentation
from avtrain.cli.evals.seld import seld
from avtrain.cli.export import export
from avtrain.cli.import_checkpoint import import_checkpoint
from avtrain.cli.locate import locate
from avtrain.cli.pretrain import pretrain
from avtrain.cli.report import report
from shards import __version__
from shards.errors import guard_terminal, printable


class _Group(click.Group):
    """Makes printable what errors quote: names, and what was typed."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        guard_terminal()
        return super().main(*args, **kwargs)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _printable_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _printable_errors():
            return super().invoke(ctx)


@contextmanager
def _printable_errors() -> Iterator[None]:
    try:
        yield
    except click.ClickException as error:
        vars(error)["message"] = printable(error.message)
        raise


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True}
)
def main() -> None:
    """Learn from shards of 360° video with ambisonics, and measure what was learned."""


evaluate.add_command(segmentation)
evaluate.add_command(probe)
evaluate.add_command(action)
evaluate.add_command(seld)
main.add_command(pretrain)
main.add_command(evaluate)
main.add_command(report)
main.add_command(embed)
main.add_command(locate)
main.add_command(export)
main.add_command(import_checkpoint)
for command in (main, *main.commands.values(), *evaluate.commands.values()):
    click.version_option(__version__, prog_name="avtrain")(command)
