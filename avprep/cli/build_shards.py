"""The commands of ``avprep`` that build shard sets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from avprep.cli.build_options import BuildShardsOptions
from avprep.cli.choices import FOA_CONVENTIONS, LAYOUTS, PROJECTIONS, STEREO_MODES

if TYPE_CHECKING:  # importing the build takes a while, which --help should not
    from avprep.build.build_shards import BuildResult

_PATH = click.Path(path_type=Path)


def _angles(_: click.Context, __: click.Parameter, value: str) -> tuple[float, float]:
    """One angle or MIN:MAX, in degrees."""
    from avprep.sphere.viewpoints import MAX_FOV_DEG

    try:
        numbers = [float(part) for part in value.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 2
    if len(numbers) != 2 or not 0 < numbers[0] <= numbers[1] <= MAX_FOV_DEG:
        raise click.BadParameter(
            f"{value!r} is no angle or MIN:MAX of up to {MAX_FOV_DEG:g} degrees"
        )
    return numbers[0], numbers[1]


def _bytes(_: click.Context, __: click.Parameter, value: str) -> int:
    """A size such as 256MB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", value.strip(), re.IGNORECASE)
    powers = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
    size = int(float(match[1]) * 1000 ** powers[match[2].upper()]) if match else 0
    if size < 1:
        raise click.BadParameter(f"{value!r} is no size such as 256MB")
    return size


@click.command("build-shards", epilog="Example: avprep build-shards /raw --out shards/")
@click.argument("raw", type=_PATH)
@click.option(
    "--out", required=True, metavar="DIR", help="Folder of the shard set, or a URL (s3://…)."
)
@click.option(
    "--layout",
    default="auto",
    type=LAYOUTS,
    help="How RAW is laid out; auto sees it by the folders and names.",
)
@click.option(
    "--splits",
    type=_PATH,
    help="Folder of train.txt, test.txt, … with a recording a line, or of a data set's official "
    "lists; by default those in RAW.",
)
@click.option(
    "--segments",
    type=_PATH,
    metavar="FILE",
    help="Lines `ID t1,t2,…`: the seconds at which clips of 10 s begin in whole recordings; by "
    "default segments.txt of YT-360.",
)
@click.option("--views", type=click.IntRange(1, 99), help="Viewpoints a clip.  [default: 8]")
@click.option(
    "--viewpoints",
    default="random",
    metavar="random|grid|energy|FILE",
    help="Drawn at random; even, round the horizon; half of them where the sound comes from; or a "
    "JSON file of views.",
)
@click.option(
    "--hfov",
    callback=_angles,
    default="25.5:90",
    metavar="MIN:MAX",
    help="Horizontal field of view of views that are drawn, degrees; a grid takes the larger.",
)
@click.option(
    "--min-separation",
    type=click.FloatRange(0, 180),
    default=36.0,
    help="Least arc between the centres of random views, degrees.",
)
@click.option("--size", type=click.IntRange(16, 2048), default=112, help="Crop size, pixels.")
@click.option("--fps", type=click.FloatRange(0, 240, min_open=True), default=16.0)
@click.option("--clip-duration", type=click.FloatRange(1, 600), default=10.0, help="Seconds.")
@click.option("--sample-rate", type=click.IntRange(8000, 192000), default=24000, help="Hz.")
@click.option(
    "--audio",
    type=click.Choice(("foa", "mono", "stereo")),
    default="foa",
    help="Ambisonics turned to each view; or what a beam to it hears, or a pair of ears.",
)
@click.option(
    "--audio-layout",
    type=click.Choice(("rotated", "source")),
    default="rotated",
    help="Sound of each view, or one unrotated sound a clip that readers rotate (much smaller).",
)
@click.option(
    "--foa-convention",
    type=FOA_CONVENTIONS,
    default="auto",
    help="Order and weights of the ambisonic channels; auto asks each file.",
)
@click.option(
    "--projection",
    type=PROJECTIONS,
    default="auto",
    help="How frames show the sphere; auto asks each file, and then its pixels.",
)
@click.option(
    "--stereo",
    type=STEREO_MODES,
    default="auto",
    help="Where a frame holds two eyes' pictures, of which the left eye's is taken.",
)
@click.option(
    "--fisheye-fov", type=click.FloatRange(90, 280), default=180.0, help="Of its circle, degrees."
)
@click.option(
    "--drop-silent",
    type=click.FloatRange(-120, 0),
    metavar="DBFS",
    help="Leave out clips with a lower level, e.g. -60.",
)
@click.option(
    "--drop-static",
    type=click.FloatRange(0, 255),
    metavar="LEVELS",
    help="Leave out clips whose grey levels change less from second to second, e.g. 0.5.",
)
@click.option(
    "--drop-mono",
    type=click.FloatRange(0, 0.75),
    metavar="SHARE",
    help="Leave out clips with a smaller share of energy beside their main signal, e.g. 0.01.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes; by default one on each core.")
@click.option(
    "--shard-size", callback=_bytes, default="256MB", metavar="SIZE", help="About, for each shard."
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Of viewpoints and shards.")
@click.option(
    "--clip-timeout", type=click.FloatRange(1), default=600.0, help="Seconds to decode a clip."
)
@click.option(
    "--append", is_flag=True, help="Add to a finished set what it does not hold yet; no rebuilding."
)
@click.option(
    "--task-index",
    type=click.IntRange(0),
    help="Make one part of the shards, in a job array.  [default: from Slurm]",
)
@click.option(
    "--task-count", type=click.IntRange(1), help="Parts of the job array.  [default: from Slurm]"
)
@click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler whose workers build.")
@click.pass_context
def build_shards(ctx: click.Context, /, raw: Path, out: str, **given: Any) -> None:
    """Make a shard set in --out of the 360° recordings in RAW.

    An interrupted build is finished by the same command. Exit status 0: all went in; 1: some
    recordings failed, OUT/failures.jsonl lists them, and the rest is complete; 2: nothing could
    be built as asked.
    """
    from avprep.build.build_shards import build_shards

    options = BuildShardsOptions(**given)
    run = options.run()
    if run.task is not None:
        click.echo(f"task {run.task.index} of {run.task.count}")
    _report(ctx, out, build_shards(raw, out, options.build_options(), options.lists(), run))


@click.command(epilog="Example: avprep merge shards")
@click.argument("out", metavar="DIR")
@click.pass_context
def merge(ctx: click.Context, out: str) -> None:
    """End a build by a job array: write DIR's manifest once all its tasks are done.

    The last task does so by itself; this is for a last task that was killed.
    """
    from avprep.build.build_shards import merge

    _report(ctx, out, merge(out))


def _report(ctx: click.Context, out: str, result: BuildResult) -> None:
    from avprep.build.finish import DROPPED_NAME, FAILURES_NAME
    from shards.folders import open_folder

    folder = open_folder(out)
    if result.manifest is None:
        click.echo(
            f"{result.missing} shards of other tasks are missing; the last task ends the set"
        )
    else:
        if result.was_complete:
            click.echo(f"{folder} is complete already")
            if result.failures:
                click.echo("(--append takes in recordings that were mended since)")
        for split, shards in result.manifest.splits.items():
            clips = sum(len(shard.keys) for shard in shards)
            sources = len({source for shard in shards for source in shard.sources})
            size = sum(shard.bytes for shard in shards) / 1e9
            click.echo(
                f"{split}: {clips} clips of {sources} recordings in {len(shards)} shards, "
                f"{size:.2f} GB"
            )
    if result.dropped:
        click.echo(
            f"{result.dropped} clips were dropped; {folder.path(DROPPED_NAME)} lists them", err=True
        )
    if result.unlisted:
        click.echo(f"{result.unlisted} clips are in no split list and were left out", err=True)
    if result.failures:
        where = f"; {folder.path(FAILURES_NAME)} says why" if result.manifest is not None else ""
        click.echo(f"{len(result.failures)} failed{where}", err=True)
        ctx.exit(1)
