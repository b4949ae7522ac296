"""Inspect recordings: their tracks, how they will be read, and anything suspicious."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from tqdm import tqdm

from avprep.errors import ClipError, one_sentence
from avprep.formats.choose_tracks import choose_audio, choose_video
from avprep.formats.decide import FormatOverrides, decide_video_format, projection_name
from avprep.look.find_media import MediaFile
from avprep.look.inspect_audio import describe_audio
from avprep.media.probe import Media, check_tracks, probe
from avprep.media.sample_frames import sample_frames
from avprep.media.timeline import shared_timeline
from avprep.media.tracks import AudioTrack, VideoTrack
from avprep.workers import WorkerPool
from shards.errors import printable

_STATIC_CHANGE = 0.5
_MAX_DELAY_S = 0.05
_FILES_FOR_PROGRESS_BAR = 10
_TIMEOUT_S = 600.0


@dataclass
class Inspection:
    """A file and its tracks; the fields are the keys of ``avprep inspect --json``.

    ``video`` and ``audio`` are None if the file lacks that track. Among their entries:
    ``level_dbfs`` is the RMS of W; ``spatiality`` the share of the field's energy that does not
    belong to a single signal from one direction (0: mono); ``change`` the mean difference of grey
    levels between sampled frames; ``late_s`` the delay of the audio's start after the video's;
    ``confidence`` (0 to 1) that a track is what it is read as: 1 if the container says so, else
    from the pixels, or the share of sounds that fit the convention.
    """

    file: str
    bytes: int
    container: str = ""
    duration_s: float = 0.0
    tracks: list[dict[str, Any]] = field(default_factory=list)
    video: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None
    suspicious: list[str] = field(default_factory=list)


def inspect_all(
    files: list[MediaFile], overrides: FormatOverrides, workers: int
) -> list[Inspection]:
    """Inspect files in parallel, in processes, since a broken file may crash its reader."""
    with (
        WorkerPool(min(workers, len(files)), _TIMEOUT_S) as pool,
        tqdm(total=len(files), unit="file", disable=len(files) < _FILES_FOR_PROGRESS_BAR) as bar,
    ):
        answers = pool.map(partial(inspect, overrides=overrides), files, bar.update)
    return [
        Inspection(str(file.path), file.path.stat().st_size, suspicious=[answer])
        if isinstance(answer, str)
        else answer
        for file, answer in zip(files, answers, strict=True)
    ]


def inspect(file: MediaFile, overrides: FormatOverrides) -> Inspection:
    """Inspect a file; faults are listed in ``suspicious``."""
    path = file.path
    result = Inspection(str(path), path.stat().st_size)
    try:
        media = probe(path)
        result = replace(
            result,
            container=media.container,
            duration_s=round(media.duration_s, 3),
            tracks=_track_records(media),
        )
        media = _choose_tracks(result, file, media, overrides)
        if media.video is not None:
            rate = media.video.fps
            fps = round(rate, 3) if rate is not None else None
            result.video = {"codec": media.video.codec, "track": media.video.index, "fps": fps}
        for add in (_add_video, _add_audio):
            try:
                add(result, file, media, overrides)
            except ClipError as error:
                result.suspicious.append(one_sentence(error))
    except ClipError as error:
        result.suspicious.append(one_sentence(error))
    return result


def _track_records(media: Media) -> list[dict[str, Any]]:
    """All tracks of a file, in its order, with the seconds of the file at which they begin and
    end."""
    tracks: list[VideoTrack | AudioTrack] = [*media.tracks.videos, *media.tracks.audios]
    records = []
    for track in sorted(tracks, key=lambda track: track.index):
        end_s = media.duration_s if track.end_s is None else track.end_s - media.start_s
        records.append(
            {
                "track": track.index,
                "kind": "video" if isinstance(track, VideoTrack) else "audio",
                "description": track.description,
                **_size_of(track),
                "begin_s": round(max(0.0, track.begin_s - media.start_s), 3),
                "end_s": round(end_s, 3),
                "default": track.is_default,
            }
        )
    return records + [{"kind": "other", "description": other} for other in media.tracks.others]


def _size_of(track: VideoTrack | AudioTrack) -> dict[str, int | None]:
    if isinstance(track, AudioTrack):
        return {"channels": track.channels, "sample_rate": track.sample_rate}
    return {"width": track.width, "height": track.height, "frames": track.frames or None}


def _choose_tracks(
    result: Inspection, file: MediaFile, media: Media, overrides: FormatOverrides
) -> Media:
    """The file with the tracks that a build would read; None where it could not choose."""
    path = file.path
    try:
        media = choose_video(path, media, overrides.video_track)
    except ClipError as error:
        result.suspicious.append(one_sentence(error))
        media = replace(media, video=None)
    try:
        media, note = choose_audio(path, media, overrides)
    except ClipError as error:
        note = ""
        if file.separate is None:
            result.suspicious.append(one_sentence(error))
            media = replace(media, audio=None)
    if note:
        result.suspicious.append(note)
    check_tracks(path.name, media)
    return media


def _add_audio(
    result: Inspection, file: MediaFile, media: Media, overrides: FormatOverrides
) -> None:
    """Add the entries of ``result.audio``, or what takes its place."""
    if media.audio is not None:
        result.audio = {"codec": media.audio.codec, "track": media.audio.index, "late_s": 0.0}
    elif media.video is not None and not media.tracks.audios and file.separate is None:
        result.suspicious.append("it has no sound; a file of the same name must hold it")
    if media.video is not None and file.separate is not None:
        _add_separate(result, file.separate, media, overrides)
    elif media.audio is not None and result.audio is not None:
        if media.video is not None:
            _add_delay(result, media)
        entries, doubts = describe_audio(file.path, media, overrides)
        result.audio.update(entries)
        result.suspicious.extend(doubts)


def _add_separate(
    result: Inspection, separate: Path, media: Media, overrides: FormatOverrides
) -> None:
    """Add that a file beside the video holds its audio, and what exists in one of them only."""
    if media.audio is not None and result.audio is not None:
        result.audio.update(channels=media.audio.channels, sample_rate=media.audio.sample_rate)
        result.audio["replaced_by"] = str(separate)
    try:
        audio, _ = choose_audio(separate, probe(separate), overrides)
    except ClipError:
        return  # its own entry says why
    result.suspicious.extend(shared_timeline(media, audio, same_file=False, flat=False).cuts)


def _add_delay(result: Inspection, media: Media) -> None:
    """Add how late the audio begins after the video, and what exists in one of them only."""
    if media.audio is None or media.video is None or result.audio is None:
        return
    delay_s = media.audio.begin_s - media.video.begin_s
    result.audio["late_s"] = round(delay_s, 4)
    cuts = shared_timeline(media, media, same_file=True, flat=False).cuts
    if abs(delay_s) > _MAX_DELAY_S and not any("begins" in cut for cut in cuts):
        result.suspicious.append(f"its sound begins {delay_s:+.3f} s after its picture")
    result.suspicious.extend(cuts)


def _add_video(
    result: Inspection, file: MediaFile, media: Media, overrides: FormatOverrides
) -> None:
    """Add the entries of ``result.video``."""
    path = file.path
    if media.video is None or result.video is None:
        return
    video_format, doubts = decide_video_format(path, media.video, media.duration_s, overrides)
    result.video.update(
        width=media.video.width,
        height=media.video.height,
        projection=projection_name(video_format.sphere),
        stereo=video_format.stereo,
        rotation_deg=video_format.rotation_deg,
        why=video_format.reason,
        sure=video_format.sure,
        confidence=video_format.confidence,
    )
    result.suspicious.extend(doubts)
    try:
        frames = [frame for frame, _ in sample_frames(path, media.video, media.duration_s)]
    except (av.FFmpegError, OSError) as error:
        result.suspicious.append(f"its picture does not decode ({error})")
        return
    if len(frames) > 1:
        change = float(np.mean([np.abs(frames[0] - frame).mean() for frame in frames[1:]]))
        result.video["change"] = round(change, 2)
        if change < _STATIC_CHANGE:
            result.suspicious.append("its picture hardly changes")


_COLUMNS = (
    *("file", "container", "s", "MB", "picture", "fps", "projection", "sure", "change"),
    *("sound", "convention", "sure", "dBFS", "spatial", "late s"),
)


def as_table(results: list[Inspection]) -> list[str]:
    """Lines of a table; below it, for each file, why it is read so and what to check."""
    rows = [_COLUMNS, *(tuple(map(printable, _row(result))) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    for result in results:
        notes: list[str] = []
        if len(result.tracks) > 2 or len({track["kind"] for track in result.tracks}) == 1:
            notes += map(_describe_track, result.tracks)
        for track, found in (("picture", result.video), ("sound", result.audio)):
            if found is not None and "why" in found:
                notes.append(f"{track}: {found['why']}")
            if found is not None and "heard" in found:
                notes.append(f"{track}: sounds like {found['heard']}")
            if found is not None and "replaced_by" in found:
                notes.append(f"{track}: {found['replaced_by']} is used instead")
        notes += [f"CHECK {sentence}" for sentence in result.suspicious]
        lines += ["", result.file, *(f"  {note}" for note in notes)]
    return lines


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


def _describe_track(record: dict[str, Any]) -> str:
    if "begin_s" not in record:
        return str(record["description"])
    default = ", default" if record["default"] else ""
    span = f"{record['begin_s']:.1f} to {record['end_s']:.1f} s"
    return f"{record['kind']} {record['description']}: {span}{default}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def as_json(results: list[Inspection]) -> list[dict[str, Any]]:
    return [asdict(result) for result in results]
