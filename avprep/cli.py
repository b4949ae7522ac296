"""The command line ``avprep``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from avprep import cli_build, cli_look
from avprep.choices import cores
from avprep.errors import UserError
from shards.errors import ShardError

_PATH = click.Path(path_type=Path)


class _Group(click.Group):
    """Shows a user's mistake as one sentence with exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
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
        click.echo(f"Error: {message}", err=True)
        raise click.exceptions.Exit(2)


@click.group(cls=_Group, context_settings={"show_default": True, "max_content_width": 100})
@click.version_option(package_name="avsa360")
def main() -> None:
    """Turn 360° video with spatial audio into shards for self-supervised training."""


@main.command(epilog="Example: avprep demo world --clips 24")
@click.argument("out", type=_PATH)
@click.option("--clips", default=40, help="Clips of 10 s; four are of one place.")
@click.option("--seed", default=0, help="The same seed makes the same files.")
@click.option("--workers", type=click.IntRange(1), help="Processes; by default one on each core.")
def demo(out: Path, clips: int, seed: int, workers: int | None) -> None:
    """Write a generated world of 360° videos with ambisonics, and its ground truth, to OUT."""
    from avprep.demo import make_world

    make_world(out, clips, seed, workers or cores())
    click.echo(f"{clips} clips in {out}; next: avprep build-shards {out} --out DIR")


for command in (
    *(cli_build.build_shards, cli_build.merge),
    *(cli_look.inspect, cli_look.info, cli_look.verify, cli_look.preview),
):
    main.add_command(command)
