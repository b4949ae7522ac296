"""``avprep build-shards`` and ``avprep merge``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from avprep.cli.build_options import BuildShardsOptions
from avprep.cli.choices import (
    FOA_CONVENTIONS,
    LAYOUTS,
    PROJECTIONS,
    SEED,
    STEREO_MODES,
    TRACK,
    WORKERS,
    Number,
)
from shards.errors import show

if TYPE_CHECKING:  # importing the build takes a while, which --help should not
    from avprep.build.build_shards import BuildResult

_PATH = click.Path(path_type=Path)
_LARGEST_SHARD = 1e12
_LATEST_S = 1e6
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def _parse_angles(_: click.Context, __: click.Parameter, value: str) -> tuple[float, float]:
    """Parse one angle or MIN:MAX, in degrees."""
    from avprep.sphere.viewpoints import MAX_FOV_DEG

    try:
        numbers = [float(part) for part in value.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 2
    if len(numbers) != 2 or not 0 < numbers[0] <= numbers[1] <= MAX_FOV_DEG:
        raise click.BadParameter(
            f"{value!r} is not an angle or MIN:MAX of at most {MAX_FOV_DEG:g} degrees"
        )
    return numbers[0], numbers[1]


def _parse_part(
    _: click.Context, __: click.Parameter, value: str | None
) -> tuple[float, float] | None:
    """Parse START:END, in seconds."""
    if value is None:
        return None
    try:
        start_s, end_s = (float(part) for part in value.split(":"))
    except ValueError:
        start_s = end_s = -1.0
    if not 0 <= start_s < end_s <= _LATEST_S:
        raise click.BadParameter(
            f"{value!r} is not START:END, two times of at most {_LATEST_S:,.0f} s"
        )
    return start_s, end_s


def _parse_size(_: click.Context, __: click.Parameter, value: str) -> int:
    """Parse a size such as 256MB, in bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", value.strip(), re.IGNORECASE)
    size = float(match[1]) * 1000 ** _POWERS[match[2].upper()] if match else 0
    if not 1 <= size <= _LARGEST_SHARD:
        raise click.BadParameter(f"{value!r} is not a size such as 256MB, of at most 1 TB")
    return int(size)


def _parse_panorama(
    _: click.Context, __: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Parse WIDTHxHEIGHT, in pixels."""
    from shards.schema import MAX_SIZE

    if value is None:
        return None
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", value, re.ASCII)
    sides = [int(side) for side in match.groups()] if match else []
    if not sides or any(side % 2 or not 16 <= side <= MAX_SIZE for side in sides):
        raise click.BadParameter(
            f"{value!r} is not WIDTHxHEIGHT, such as 512x256, in even numbers of 16 to {MAX_SIZE}"
        )
    return sides[0], sides[1]


@click.command("build-shards", epilog="Example: avprep build-shards /raw --out shards/")
@click.argument("raw", type=_PATH)
@click.option(
    "--out", required=True, metavar="DIR", help="Folder of the shard set, or a URL (s3://…)."
)
@click.option(
    "--layout",
    default="auto",
    type=LAYOUTS,
    help="Layout of RAW; auto detects it by folder and file names.",
)
@click.option(
    "--splits",
    type=_PATH,
    help="Folder with train.txt, test.txt, …, which list one recording per line, or with a "
    "dataset's official lists; by default those in RAW are used.",
)
@click.option(
    "--segments",
    type=_PATH,
    metavar="FILE",
    help="Lines `ID t1,t2,…`: the seconds at which clips of 10 s start in whole recordings; by "
    "default segments.txt of YT-360.",
)
@click.option("--views", type=click.IntRange(1, 99), help="Viewpoints per clip.  [default: 8]")
@click.option(
    "--viewpoints",
    default="random",
    metavar="random|grid|energy|FILE",
    help="Random; evenly spaced on the horizon; half of them where sound comes from; or a JSON "
    "file of views.",
)
@click.option(
    "--hfov",
    callback=_parse_angles,
    default="25.5:90",
    metavar="MIN:MAX",
    help="Range of the horizontal field of view of random views, degrees; a grid uses MAX.",
)
@click.option(
    "--min-separation",
    type=Number(0, 180),
    default=36.0,
    help="Minimum angle between the centres of random views, degrees.",
)
@click.option(
    "--size", type=click.IntRange(16, 2048), default=112, help="Height and width of crops, pixels."
)
@click.option(
    "--panorama",
    callback=_parse_panorama,
    metavar="WxH",
    help="Also store the whole sphere as an equirectangular video of this size, e.g. 512x256.",
)
@click.option("--fps", type=Number(0.1, 240), default=16.0, help="Frames per second.")
@click.option("--clip-duration", type=Number(1, 600), default=10.0, help="Clip length, seconds.")
@click.option(
    "--part",
    callback=_parse_part,
    metavar="START:END",
    help="Use only these seconds of each recording's file.",
)
@click.option("--sample-rate", type=click.IntRange(8000, 192000), default=24000, help="Hz.")
@click.option(
    "--audio",
    type=click.Choice(("foa", "mono", "stereo")),
    default="foa",
    help="Ambisonics; a mono beam towards each view; or stereo as heard by a pair of ears.",
)
@click.option(
    "--audio-layout",
    type=click.Choice(("rotated", "source")),
    default="rotated",
    help="Rotated audio for each view; or one unrotated track per clip, which readers rotate (much "
    "smaller).",
)
@click.option(
    "--foa-convention",
    type=FOA_CONVENTIONS,
    default="auto",
    help="Order and normalization of the ambisonic channels; auto decides for each file.",
)
@click.option(
    "--projection",
    type=PROJECTIONS,
    default="auto",
    help="Projection of the sphere in frames; auto decides for each file, from pixels if need be.",
)
@click.option(
    "--stereo",
    type=STEREO_MODES,
    default="auto",
    help="Arrangement of the two eyes in a frame; the left eye is used.",
)
@click.option(
    "--fisheye-fov",
    type=Number(90, 280),
    default=180.0,
    help="Angle across the fisheye circle, degrees.",
)
@click.option(
    "--video-track",
    type=TRACK,
    metavar="N",
    help="Track to use of files with several videos, numbered as `avprep inspect` lists them.",
)
@click.option(
    "--audio-track",
    type=TRACK,
    metavar="N",
    help="Track to use of files with several that can be ambisonics.",
)
@click.option(
    "--drop-silent",
    type=Number(-120, 0),
    metavar="DBFS",
    help="Drop clips with a lower level, e.g. -60.",
)
@click.option(
    "--drop-static",
    type=Number(0, 255),
    metavar="LEVELS",
    help="Drop clips whose grey levels change less from second to second, e.g. 0.5.",
)
@click.option(
    "--drop-mono",
    type=Number(0, 0.75),
    metavar="SHARE",
    help="Drop clips with a smaller share of energy outside their main signal, e.g. 0.01.",
)
@click.option("--workers", type=WORKERS, help="Processes; by default one per core.")
@click.option(
    "--shard-size",
    callback=_parse_size,
    default="256MB",
    metavar="SIZE",
    help="Approximate size of a shard.",
)
@click.option(
    "--seed",
    type=SEED,
    default=0,
    help="Seed of random viewpoints and of the order of clips.",
)
@click.option(
    "--clip-timeout",
    type=Number(1, 1_000_000),
    default=600.0,
    help="Time limit for decoding a clip, seconds.",
)
@click.option(
    "--append", is_flag=True, help="Add new recordings to a finished set without rebuilding it."
)
@click.option(
    "--task-index",
    type=click.IntRange(0, 999_999),
    help="This task's number in a job array; it makes a part of the shards.  [default: from Slurm]",
)
@click.option(
    "--task-count",
    type=click.IntRange(1, 1_000_000),
    help="Number of tasks in the job array.  [default: from Slurm]",
)
@click.option(
    "--scheduler", metavar="ADDRESS", help="Dask scheduler whose workers make the shards."
)
@click.pass_context
def build_shards(ctx: click.Context, /, raw: Path, out: str, **given: Any) -> None:
    """Build a shard set in --out from the 360° recordings in RAW.

    Run the same command again to finish an interrupted build. Exit status 0: all recordings are in
    the set; 1: some failed, OUT/failures.jsonl lists them, and the others are in the set; 2: the
    set could not be built.
    """
    from avprep.build.build_shards import build_shards

    options = BuildShardsOptions(**given)
    run = options.run()
    if run.task is not None:
        show(f"task {run.task.index} of {run.task.count}")
    _show_result(ctx, out, build_shards(raw, out, options.build_options(), options.lists(), run))


@click.command(epilog="Example: avprep merge shards")
@click.argument("out", metavar="DIR")
@click.pass_context
def merge(ctx: click.Context, out: str) -> None:
    """Finish a job array's build: write DIR's manifest after all tasks are done.

    The last task does this itself; use this command if it was killed.
    """
    from avprep.build.build_shards import merge

    _show_result(ctx, out, merge(out))


def _show_result(ctx: click.Context, out: str, result: BuildResult) -> None:
    from avprep.build.finish import DROPPED_NAME, FAILURES_NAME
    from shards.folders import open_folder

    folder = open_folder(out)
    if result.manifest is None:
        show(f"{result.missing} shards of other tasks are missing; the last task finishes the set")
    else:
        if result.was_complete:
            show(f"{folder} is already complete")
            if result.failures:
                show("(--append adds recordings that were repaired since)")
        for split, shards in result.manifest.splits.items():
            clips = sum(len(shard.keys) for shard in shards)
            sources = len({source for shard in shards for source in shard.sources})
            size = sum(shard.bytes for shard in shards) / 1e9
            show(
                f"{split}: {clips} clips of {sources} recordings in {len(shards)} shards, "
                f"{size:.2f} GB"
            )
    if result.dropped:
        show(
            f"{result.dropped} clips were dropped; {folder.path(DROPPED_NAME)} lists them", err=True
        )
    if result.unlisted:
        show(f"{result.unlisted} clips are in no split list and were left out", err=True)
    if result.failures:
        where = f"; {folder.path(FAILURES_NAME)} says why" if result.manifest is not None else ""
        show(f"{len(result.failures)} failed{where}", err=True)
        ctx.exit(1)
