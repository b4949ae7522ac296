"""The commands of ``avprep`` that look: at recordings and at shard sets."""

from __future__ import annotations

import json
from pathlib import Path

import click

from avprep.cli.choices import FOA_CONVENTIONS, PROJECTIONS, STEREO_MODES, cores

_PATH = click.Path(path_type=Path)


@click.command(epilog="Example: avprep inspect /raw --picture where.png")
@click.argument("paths", nargs=-1, required=True, type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="A JSON list instead of text.")
@click.option(
    "--picture",
    type=_PATH,
    metavar="FILE.png",
    help="Draw the first video's frame with its sound's energy over it.",
)
@click.option("--sound", type=_PATH, help="With --picture: the file that holds the sound.")
@click.option("--foa-convention", type=FOA_CONVENTIONS, default="auto", help="As in build-shards.")
@click.option("--projection", type=PROJECTIONS, default="auto", help="As in build-shards.")
@click.option("--stereo", type=STEREO_MODES, default="auto", help="As in build-shards.")
@click.option("--workers", type=click.IntRange(1), help="Processes; by default one on each core.")
def inspect(
    paths: tuple[Path, ...],
    as_json: bool,
    picture: Path | None,
    sound: Path | None,
    foa_convention: str,
    projection: str,
    stereo: str,
    workers: int | None,
) -> None:
    """What each file is, how it will be read and why, and what is suspicious about it."""
    from avprep.errors import ClipError, UserError
    from avprep.formats.decide import FormatOverrides, decide_audio_format, decide_video_format
    from avprep.look import inspect as inspection
    from avprep.media.probe import probe

    overrides = FormatOverrides(projection, stereo, foa_convention=foa_convention)
    files = inspection.find_media_files(paths)
    results = inspection.inspect_all(files, overrides, workers or cores())
    if as_json:
        click.echo(json.dumps(inspection.as_json(results), ensure_ascii=False, indent=1))
    else:
        click.echo(inspection.as_table(results))
    if picture is None:
        return
    from avprep.look.preview import draw_recording, read_full_frame

    video = next((Path(r.file) for r in results if r.video is not None), None)
    if video is None:
        raise UserError("--picture needs a video among the files")
    try:
        media, heard = probe(video), probe(sound or video)
        if media.video is None or heard.audio is None:
            raise ClipError(f"{(sound or video).name} has no sound")
        seen = decide_video_format(video, media.video, media.duration_s, overrides)
        of = decide_audio_format(sound or video, heard.audio, overrides)
        field = inspection.read_field_excerpt(sound or video, heard, of)
    except ClipError as error:
        raise UserError(f"{error}; --sound names another file with its sound") from None
    frame = read_full_frame(video, media.duration_s / 2, seen)
    said = draw_recording(picture, video.name, frame, field, heard.audio.sample_rate)
    click.echo(said, err=as_json)


@click.command(epilog="Example: avprep info shards")
@click.argument("shards", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def info(shards: str, as_json: bool) -> None:
    """What a shard set holds: clips, hours, bytes, views, options, and leaks between splits."""
    from avprep.look.info import as_text, describe_set

    value = describe_set(shards)
    click.echo(json.dumps(value, indent=1) if as_json else as_text(value))


@click.command(epilog="Example: avprep verify shards --quick")
@click.argument("shards", metavar="DIR")
@click.option("--quick", is_flag=True, help="Hashes only.")
@click.option("--workers", type=click.IntRange(1), help="Processes; by default one on each core.")
@click.pass_context
def verify(ctx: click.Context, shards: str, quick: bool, workers: int | None) -> None:
    """Check a shard set: hashes, structure, and that every sample decodes and agrees with its JSON.

    Names shard, sample and member of each fault. Exit status 1 if there are any.
    """
    from avprep.look.verify import verify_set

    samples, faults = verify_set(shards, quick, workers or cores())
    for fault in faults:
        click.echo(fault)
    click.echo(f"{samples} samples, {len(faults)} faults", err=True)
    if faults:
        ctx.exit(1)


# Unknown options are taken for keys: ids of YouTube may begin with a dash.
@click.command(
    epilog="Example: avprep preview shards --raw /raw --out clip.png",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("shards")
@click.argument("key", required=False)
@click.option("--out", type=_PATH, default=Path("preview.png"), help="PNG file to write.")
@click.option("--raw", type=_PATH, help="Folder the set was built from: shows its whole frame.")
@click.option("--at", "at_s", type=click.FloatRange(0), default=0.0, help="Second of the clip.")
def preview(shards: str, key: str | None, out: Path, raw: Path | None, at_s: float) -> None:
    """Draw the clip KEY (by default the first) of a shard set: views, sound and its directions."""
    from avprep.look.preview import draw_preview

    click.echo(draw_preview(shards, key, out, raw, at_s))
