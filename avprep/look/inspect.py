"""What recordings are, how they will be read, and what is suspicious about them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from avprep.errors import ClipError, UserError, one_sentence
from avprep.foa.ambix import level_dbfs, spatiality, to_ambix
from avprep.formats.decide import (
    AudioFormat,
    FormatOverrides,
    decide_audio_format,
    decide_video_format,
)
from avprep.formats.guess_convention import ChannelAnalysis, analyse_channels
from avprep.formats.guess_projection import sample_frames
from avprep.media.excerpt import read_excerpt
from avprep.media.probe import Media, open_media, probe
from avprep.recordings.recording import AUDIO_SUFFIXES, VIDEO_SUFFIXES, audio_files
from avprep.workers import WorkerPool

_EXCERPT_S = 10.0
_SILENT_DBFS = -60.0
_STATIC = 0.5
_MONO = 0.01
_SYNC_S = 0.05
_LENGTHS_S = 0.5
_UNSURE = 0.5
_MANY = 10
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Inspection:
    """A file, as far as it has picture and sound.

    ``level_dbfs``: of W, RMS; ``spatiality``: the share of the field's energy that is not one
    signal from one direction (0: mono); ``change``: mean difference of grey levels between moments;
    ``late_s``: how much later the sound begins than the picture; ``confidence``: that picture or
    sound are what they are taken for, 0 to 1: 1 where a container says so, else as the pixels or
    the share of sounds that are as they should be.
    """

    file: str
    bytes: int
    container: str = ""
    duration_s: float = 0.0
    video: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None
    suspicious: list[str] = field(default_factory=list)


def files_of(paths: tuple[Path, ...]) -> list[Path]:
    """The media files among paths and in folders. Raises UserError where there is none."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            kinds = (*VIDEO_SUFFIXES, *AUDIO_SUFFIXES)
            inside = (p for p in path.rglob("*") if p.suffix.lower() in kinds and p.is_file())
            found += sorted(inside)
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"{path} does not exist")
    if not found:
        raise UserError(f"{', '.join(map(str, paths))} holds no video or sound")
    return found


def inspect_all(files: list[Path], overrides: FormatOverrides, workers: int) -> list[Inspection]:
    """Look at files side by side, in processes, since broken ones may end what reads them."""
    with (
        WorkerPool(min(workers, len(files)), _TIMEOUT_S) as pool,
        tqdm(total=len(files), unit="file", disable=len(files) < _MANY) as bar,
    ):
        answers = pool.map(partial(inspect, overrides=overrides), files, bar.update)
    return [
        Inspection(str(path), path.stat().st_size, suspicious=[answer])
        if isinstance(answer, str)
        else answer
        for path, answer in zip(files, answers, strict=True)
    ]


def inspect(path: Path, overrides: FormatOverrides) -> Inspection:
    """Look at a file; what cannot be read is said in ``suspicious``."""
    result = Inspection(str(path), path.stat().st_size)
    try:
        media = probe(path)
        result = replace(result, duration_s=round(media.duration_s, 3), **_container(path))
        late = result.audio.pop("begins_s", 0.0) if result.audio else 0.0
        if result.video is not None and media.video is not None:
            late -= result.video.pop("begins_s", 0.0)
            result = _with_picture(result, path, media, overrides)
        if result.audio is not None:
            result.audio["late_s"] = round(late, 4) if result.video is not None else 0.0
            if abs(result.audio["late_s"]) > _SYNC_S:
                result.suspicious.append(f"its sound begins {late:+.3f} s after its picture")
            result = _with_sound(result, path, media, overrides)
        elif result.video is not None and _side_of(path) is None:
            result.suspicious.append("it has no sound; a file of the same name must hold it")
    except ClipError as error:
        result.suspicious.append(one_sentence(error))
    return result


def _container(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with open_media(path) as container:
        found["container"] = container.format.name.split(",")[0]
        for stream in (*container.streams.video[:1], *container.streams.audio[:1]):
            begins = float((stream.start_time or 0) * (stream.time_base or 0))
            codec = getattr(stream.codec_context, "name", "unknown")  # no context: no such codec
            found[stream.type] = {"codec": codec, "begins_s": begins}
        if container.streams.video:
            rate = container.streams.video[0].average_rate
            found["video"]["fps"] = round(float(rate), 3) if rate else None
    return found


def _with_picture(
    result: Inspection, path: Path, media: Media, overrides: FormatOverrides
) -> Inspection:
    if media.video is None or result.video is None:
        return result
    of = decide_video_format(path, media.video, media.duration_s, overrides)
    result.video.update(
        width=media.video.width,
        height=media.video.height,
        projection=of.sphere.projection,
        stereo=of.stereo,
        rotation_deg=of.rotation_deg,
        why=of.reason,
        sure=of.sure,
        confidence=of.confidence,
    )
    if not of.sure:
        result.suspicious.append(f"its projection is not clear: {of.reason}")
    try:
        frames = [frame for frame, _ in sample_frames(path, media.duration_s)]
    except (av.FFmpegError, OSError) as error:
        result.suspicious.append(f"its picture does not decode ({error})")
        return result
    if len(frames) > 1:
        change = float(np.mean([np.abs(frames[0] - frame).mean() for frame in frames[1:]]))
        result.video["change"] = round(change, 2)
        if change < _STATIC:
            result.suspicious.append("its picture hardly changes")
    return result


def _with_sound(
    result: Inspection, path: Path, media: Media, overrides: FormatOverrides
) -> Inspection:
    if media.audio is None or result.audio is None:
        return result
    side = _side_of(path)
    if result.video is not None and side is not None:
        result.audio.update(channels=media.audio.channels, sample_rate=media.audio.sample_rate)
        result.audio["replaced_by"] = str(side)
        sound_s = probe(side).duration_s
        if abs(sound_s - result.duration_s) > _LENGTHS_S:
            result.suspicious.append(
                f"its sound {side.name} lasts {sound_s:.1f} s and its picture "
                f"{result.duration_s:.1f} s"
            )
        return result
    of = decide_audio_format(path, media.audio, overrides)
    result.audio.update(
        channels=media.audio.channels,
        sample_rate=media.audio.sample_rate,
        convention=of.convention,
        why=of.reason,
        sure=of.sure,
        confidence=1.0 if of.sure else 0.0,
    )
    raw = _raw_excerpt(path, media)
    try:
        field = to_ambix(raw, of.convention, of.channels)
    except ClipError as error:
        result.suspicious.append(str(error))
        heard = analyse_channels(raw[:4]) if len(raw) >= 4 else None
        if heard is not None:
            result.audio["heard"] = f"its first four: {_in_words(heard)}"
        return result
    level = level_dbfs(field)
    result.audio["level_dbfs"] = round(level, 1)
    if level < _SILENT_DBFS:
        result.suspicious.append(f"it is silent ({level:.0f} dB of full scale)")
        return result
    result.audio["spatiality"] = round(spatiality(field), 3)
    if result.audio["spatiality"] < _MONO:
        result.suspicious.append("all its channels hold one signal: it is mono, or a single sound")
        return result
    heard = analyse_channels(field)
    if heard is not None:
        result.audio["heard"] = _in_words(heard)
        if not of.sure:
            result.audio["confidence"] = round(heard.like_sn3d, 2)
        result.suspicious.extend(_against(heard, of))
    if not result.suspicious and result.audio["confidence"] < _UNSURE:
        result.suspicious.append(
            f"neither its container nor its sound is clear about its being {of.convention}; look "
            "at where it comes from with --picture"
        )
    return result


def _side_of(video: Path) -> Path | None:
    """The file whose sound a build takes instead of the one inside."""
    sides = audio_files(video.parent, video.stem)
    if video.parent.name == "video":
        sides += audio_files(video.parent.parent / "audio", video.stem)
    return sides[0] if len(sides) == 1 else None


def excerpt(path: Path, media: Media, of: AudioFormat) -> NDArray[np.float32]:
    """Ten seconds of the field (4, samples) from a file's middle. Raises ClipError."""
    return to_ambix(_raw_excerpt(path, media), of.convention, of.channels)


def _raw_excerpt(path: Path, media: Media) -> NDArray[np.float32]:
    if media.audio is None:
        raise ClipError(f"{path.name} has no sound")
    start = max(0.0, media.duration_s / 2 - _EXCERPT_S / 2)
    raw = read_excerpt(path, media.audio.channels, start, _EXCERPT_S)
    if not raw.shape[1]:
        raise ClipError(f"{path.name}: its sound does not decode; download it again")
    return raw


def _in_words(heard: ChannelAnalysis) -> str:
    sure = "clear" if heard.is_sure else "not clear"
    return (
        f"{heard.normalization}, W in channel {heard.w} of W, Y, Z, X ({heard.ratio_db:+.1f} dB "
        f"± {heard.spread_db:.1f}, {sure})"
    )


def _against(heard: ChannelAnalysis, of: AudioFormat) -> list[str]:
    if heard.looks_like_capsules:
        return ["all its channels hear the same, as those of a raw microphone (A-format) do"]
    if heard.is_sure and (heard.w, heard.normalization) != (0, "SN3D"):
        return [f"read as {of.convention}, it sounds like {_in_words(heard)}; see --foa-convention"]
    return []


_COLUMNS = (
    *("file", "container", "s", "MB", "picture", "fps", "projection", "sure", "change"),
    *("sound", "convention", "sure", "dBFS", "spatial", "late s"),
)


def as_table(results: list[Inspection]) -> str:
    """For people: a table, and below it why each file is taken so and what should be checked."""
    rows = [_COLUMNS, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    for result in results:
        notes = []
        for track, found in (("picture", result.video), ("sound", result.audio)):
            if found is not None and "why" in found:
                notes.append(f"{track}: {found['why']}")
            if found is not None and "heard" in found:
                notes.append(f"{track}: sounds like {found['heard']}")
            if found is not None and "replaced_by" in found:
                notes.append(f"{track}: that of {found['replaced_by']} is taken instead")
        notes += [f"CHECK {what}" for what in result.suspicious]
        lines += ["", result.file, *(f"  {note}" for note in notes)]
    return "\n".join(lines)


def _row(result: Inspection) -> tuple[str, ...]:
    video, audio = result.video or {}, result.audio or {}
    stereo = f", {video['stereo']}" if video.get("stereo", "mono") != "mono" else ""
    picture = f"{video['codec']} {video['width']}×{video['height']}" if "width" in video else "-"
    sound = "-"
    if "channels" in audio:
        sound = f"{audio['codec']} {audio['channels']} ch, {audio['sample_rate']} Hz"
    return (
        Path(result.file).name,
        result.container or "unreadable",
        f"{result.duration_s:.1f}",
        f"{result.bytes / 1e6:.1f}",
        picture,
        _number(video.get("fps")),
        video.get("projection", "-") + stereo,
        _number(video.get("confidence")),
        _number(video.get("change")),
        sound,
        audio.get("convention", "-"),
        *(
            _number(audio.get(name))
            for name in ("confidence", "level_dbfs", "spatiality", "late_s")
        ),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def as_json(results: list[Inspection]) -> list[dict[str, Any]]:
    return [asdict(result) for result in results]
