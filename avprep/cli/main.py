"""The command line ``avprep``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from avprep.cli import build_shards as cli_build
from avprep.cli import look as cli_look
from avprep.cli.choices import cores
from avprep.errors import UserError
from shards.errors import ShardError

_PATH = click.Path(path_type=Path)
DEFAULT_CLIPS = 40
"""Of ``demo``."""


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
@click.option(
    "--clips", type=int, help="Clips of 10 s; four are of one place.  [default: 40; 360 videos]"
)
@click.option("--seed", default=0, help="The same seed makes the same files.")
@click.option("--workers", type=click.IntRange(1), help="Processes; by default one on each core.")
@click.option(
    "--actions",
    is_flag=True,
    help="Ordinary videos of ten actions instead, labelled as UCF101, for `avtrain eval action`.",
)
def demo(out: Path, clips: int | None, seed: int, workers: int | None, actions: bool) -> None:
    """Write a generated world of 360° videos with ambisonics, and its ground truth, to OUT.

    With --actions: videos of 2 to 4 s in the layout of UCF101, with the lists of three folds, in
    which an object of any kind blinks, bounces, circles, crosses, grows, shakes, spins or swings.
    """
    if actions:
        from avprep.world.write_actions import DEFAULT_VIDEOS, make_actions

        clips = DEFAULT_VIDEOS if clips is None else clips
        make_actions(out, clips, seed, workers or cores())
    else:
        from avprep.world.write import make_world

        clips = DEFAULT_CLIPS if clips is None else clips
        make_world(out, clips, seed, workers or cores())
    what = "videos" if actions else "clips"
    click.echo(f"{clips} {what} in {out}; next: avprep build-shards {out} --out DIR")


for command in (
    *(cli_build.build_shards, cli_build.merge),
    *(cli_look.inspect, cli_look.info, cli_look.verify, cli_look.preview),
):
    main.add_command(command)
