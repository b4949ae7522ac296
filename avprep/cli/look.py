"""``avprep inspect``, ``info``, ``verify``, ``preview``, ``card``: look at recordings and sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from avprep.cli.choices import (
    FOA_CONVENTIONS,
    PROJECTIONS,
    STEREO_MODES,
    TRACK,
    WORKERS,
    Number,
    cores,
)
from shards.errors import show, show_json

if TYPE_CHECKING:  # importing these takes a while, which --help should not
    from avprep.formats.decide import FormatOverrides
    from avprep.look.inspect import Inspection

_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(epilog="Example: avprep inspect /raw --picture where.png")
@click.argument("paths", nargs=-1, required=True, type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of text.")
@click.option(
    "--picture",
    type=_FILE,
    metavar="FILE.png",
    help="Draw a frame of the first video with the energy of its audio over it.",
)
@click.option("--sound", type=_FILE, help="With --picture: the file that holds the audio.")
@click.option("--foa-convention", type=FOA_CONVENTIONS, default="auto", help="As in build-shards.")
@click.option("--projection", type=PROJECTIONS, default="auto", help="As in build-shards.")
@click.option("--stereo", type=STEREO_MODES, default="auto", help="As in build-shards.")
@click.option(
    "--fisheye-fov",
    "fisheye_fov_deg",
    type=Number(90, 280),
    default=180.0,
    help="As in build-shards.",
)
@click.option("--video-track", type=TRACK, metavar="N", help="As in build-shards.")
@click.option("--audio-track", type=TRACK, metavar="N", help="As in build-shards.")
@click.option("--workers", type=WORKERS, help="Processes; by default one per core.")
def inspect(
    paths: tuple[Path, ...],
    as_json: bool,
    picture: Path | None,
    sound: Path | None,
    workers: int | None,
    **formats: Any,
) -> None:
    """Show what each file holds, how and why it will be read so, and what is suspicious.

    Exit status 1 if a folder cannot be read.
    """
    from avprep.formats.decide import FormatOverrides
    from avprep.look import inspect as inspection
    from avprep.look.find_media import find_media_files
    from avprep.media.find_ffmpeg import find_ffmpeg

    if find_ffmpeg().warning:
        show(f"check: {find_ffmpeg().warning}", err=True)
    overrides = FormatOverrides(**formats)
    found = find_media_files(paths)
    results = inspection.inspect_all(found.files, overrides, workers or cores())
    if as_json:
        show_json(inspection.as_json(results))
    else:
        show(*inspection.as_table(results))
    for sentence in (*found.not_read, *found.unreadable):
        show(sentence, err=True)
    if picture is not None:
        _draw(picture, sound, results, overrides, as_json)
    if found.unreadable:
        click.get_current_context().exit(1)


def _draw(
    picture: Path,
    sound: Path | None,
    results: list[Inspection],
    overrides: FormatOverrides,
    to_stderr: bool,
) -> None:
    """Draw a frame of the first video with the energy of its audio over it."""
    from avprep.errors import ClipError, UserError
    from avprep.formats.choose_tracks import choose_tracks
    from avprep.formats.decide import decide_video_format
    from avprep.formats.decide_audio import decide_audio_format
    from avprep.look.inspect_audio import read_field
    from avprep.look.preview import draw_recording, read_full_frame
    from avprep.media.probe import probe

    video = next((Path(r.file) for r in results if r.video is not None), None)
    if video is None:
        raise UserError("--picture needs a video among the files")
    try:
        audio = sound or video
        files_media = (probe(video), probe(audio))
        (media, audio_media), _ = choose_tracks((video, audio), files_media, overrides, flat=False)
        if media.video is None or audio_media.audio is None:
            raise ClipError(f"{audio.name} has no audio track")
        video_format, _ = decide_video_format(video, media.video, media.duration_s, overrides)
        audio_format = decide_audio_format(audio, audio_media.audio, overrides)
        field = read_field(audio, audio_media, audio_format)
    except ClipError as error:
        raise UserError(f"{error}; name the file with its audio with --sound") from None
    frame = read_full_frame(video, media.duration_s / 2, video_format, media.video.index)
    sample_rate = audio_media.audio.sample_rate
    show(draw_recording(picture, video.name, frame, field, sample_rate), err=to_stderr)


@click.command(epilog="Example: avprep info shards")
@click.argument("shards", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def info(shards: str, as_json: bool) -> None:
    """Show what a shard set holds: clips, hours, bytes, views, options, leaks between splits."""
    from avprep.look.info import as_text, describe_set

    value = describe_set(shards)
    if as_json:
        show_json(value)
    else:
        show(*as_text(value))


@click.command(epilog="Example: avprep verify shards --quick")
@click.argument("shards", metavar="DIR")
@click.option("--quick", is_flag=True, help="Check hashes of shards and indices only.")
@click.option("--workers", type=WORKERS, help="Processes; by default one per core.")
@click.pass_context
def verify(ctx: click.Context, shards: str, quick: bool, workers: int | None) -> None:
    """Check a shard set: hashes of shards, indices and manifest, that these agree, and that each
    sample decodes and matches its JSON.

    Prints shard, sample and member of each fault. Exit status 1 if there are any.
    """
    from avprep.look.verify import verify_set

    found = verify_set(shards, quick, workers or cores())
    show(*found.faults)
    if found.unchecked:
        show(f"not checked: {found.unchecked}", err=True)
    show(f"{found.samples} samples, {len(found.faults)} faults", err=True)
    if found.faults:
        ctx.exit(1)


# Unknown options are read as keys: YouTube ids may begin with a dash.
@click.command(
    epilog="Example: avprep preview shards --raw /raw --out clip.png",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("shards")
@click.argument("key", required=False)
@click.option("--out", type=_FILE, default=Path("preview.png"), help="PNG file to write.")
@click.option("--raw", type=_PATH, help="Folder the set was built from, to draw the whole frame.")
@click.option("--at", "at_s", type=Number(0, 3600), default=0.0, help="Time in the clip, seconds.")
def preview(shards: str, key: str | None, out: Path, raw: Path | None, at_s: float) -> None:
    """Draw clip KEY (by default the first) of a shard set: views, audio and its directions."""
    from avprep.look.preview import draw_preview

    show(draw_preview(shards, key, out, raw, at_s))


@click.command(epilog="Example: avprep card shards")
@click.argument("shards", metavar="DIR")
@click.option("--out", type=_FILE, help="File to write.  [default: README.md in DIR]")
def card(shards: str, out: Path | None) -> None:
    """Write the dataset card of a shard set, for the Hugging Face Hub and `datasets`."""
    from avprep.look.card import write_card

    show(write_card(shards, out))
