"""The command line ``avprep``."""

from __future__ import annotations

from typing import Any

import click

from avprep.cli.build_shards import build_shards, merge
from avprep.cli.coverage import coverage
from avprep.cli.demo import demo
from avprep.cli.look import card, info, inspect, preview, verify
from avprep.cli.view import view
from avprep.errors import UserError
from shards import __version__
from shards.errors import ShardError, guard_terminal, printable, show


class _Group(click.Group):
    """Reports expected errors as one sentence, with exit status 2."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        guard_terminal()
        return super().main(*args, **kwargs)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.ClickException as error:
            vars(error)["message"] = printable(error.message)
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            vars(error)["message"] = printable(error.message)
            raise
        except (UserError, ShardError) as error:
            message = str(error)
        except OSError as error:
            if error.filename is None:
                raise
            message = f"{error.filename}: {error.strerror}"
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] in ("avprep", "shards"):
                raise
            message = f"{error.name} is not installed; `pip install 'avsa360[prep]'` brings it"
        show(f"Error: {message}", err=True)
        raise click.exceptions.Exit(2)


_CONTEXT = {
    "help_option_names": ["-h", "--help"],  # of all subcommands too
    "show_default": True,
    "max_content_width": 100,
}


@click.group(cls=_Group, context_settings=_CONTEXT)
def main() -> None:
    """Turn 360° video with spatial audio into shards for self-supervised training."""


for command in (demo, build_shards, merge, inspect, coverage, info, verify, preview, view, card):
    main.add_command(command)
for command in (main, *main.commands.values()):
    click.version_option(__version__, prog_name="avprep")(command)
