"""``avprep demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from avprep.cli.choices import SEED, WORKERS, cores
from shards.errors import show

DEFAULT_CLIPS = 40


@click.command(epilog="Example: avprep demo world --clips 24")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--clips",
    type=click.IntRange(1, 1_000_000),
    help="Number of 10 s clips, four per place, or of videos.  [default: 40; 360 or 2400 videos]",
)
@click.option("--seed", type=SEED, default=0, help="The same seed gives the same files.")
@click.option("--workers", type=WORKERS, help="Processes; by default one per core.")
@click.option(
    "--actions",
    is_flag=True,
    help="Write ordinary videos of ten actions, in UCF101's layout, for `avtrain eval action`.",
)
@click.option(
    "--difficulty",
    type=click.Choice(("easy", "hard")),
    default="easy",
    help="hard: kinds that look or sound alike, silent look-alikes, sounds without picture, and "
    "sources at 1 to 3 m in reverberant rooms; actions that no single frame tells.",
)
def demo(
    out: Path,
    clips: int | None,
    seed: int,
    workers: int | None,
    actions: bool,
    difficulty: Literal["easy", "hard"],
) -> None:
    """Generate 360° videos with ambisonics and ground truth in OUT.

    Run the same command again to resume.

    With --actions: videos of 2 to 4 s in UCF101's layout, with lists of three folds, in which an
    object of any kind blinks, bounces, circles, crosses, grows, shakes, spins or swings. Those of
    --difficulty hard differ in the order and speed of their frames only.
    """
    if actions:
        from avprep.world.write_actions import DEFAULT_VIDEOS, make_actions

        clips = DEFAULT_VIDEOS[difficulty] if clips is None else clips
        make_actions(out, clips, seed, workers or cores(), difficulty=difficulty)
    else:
        from avprep.world.write import make_world

        clips = DEFAULT_CLIPS if clips is None else clips
        make_world(out, clips, seed, workers or cores(), difficulty=difficulty)
    what = "videos" if actions else "clips"
    show(f"{clips} {what} in {out}; next: avprep build-shards {out} --out DIR")
