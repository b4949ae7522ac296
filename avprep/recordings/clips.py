"""Cutting recordings into clips, each with a key and a split."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from avprep.formats.decide import VideoFormat
from avprep.formats.decide_audio import AudioFormat
from avprep.media.probe import Media
from avprep.recordings.lists import UNLISTED
from avprep.recordings.recording import Recording

MIN_CLIP_S = 1.0
DEFAULT_SPLIT = "train"
_MAX_SLUG_LENGTH = 64
_DURATION_TOLERANCE_S = 0.25


@dataclass(frozen=True)
class Clip:
    """A clip to make: ``duration_s`` seconds of its files, from ``offset_s`` on.

    ``start_s`` is the same time in the original recording ``source``, of which the files may be a
    part; ``file`` is the video's path relative to the input folder. ``truth`` is a file of labels
    in time; ``maps`` is a folder of label maps, in which the clip begins at ``maps_offset_s``.
    ``flat``: an ordinary video, not a 360° one. ``media`` is what video and audio file hold, if
    that is known already.
    """

    key: str
    source: str
    split: str
    video: Path
    audio: Path
    file: str
    start_s: float
    offset_s: float
    duration_s: float
    video_format: VideoFormat = VideoFormat()  # noqa: RUF009
    audio_format: AudioFormat = AudioFormat()  # noqa: RUF009
    label: str | None = None
    folds: tuple[str, ...] | None = None
    truth: Path | None = None
    maps: Path | None = None
    maps_offset_s: float = 0.0
    flat: bool = False
    media: tuple[Media, Media] | None = None


def cut_clips(recording: Recording, begin_s: float, end_s: float, clip_s: float) -> list[Clip]:
    """Consecutive clips of ``clip_s`` seconds between two times of a recording's file; a remainder
    of at least half a clip is one as well.

    A recording or window that is shorter than a clip becomes one clip; a window that lies outside
    those times becomes none. ``key``, ``split`` and formats are filled in later.
    """
    clips = []
    for start_s, length_s in recording.windows or ((0.0, end_s),):
        late_s = max(0.0, begin_s - start_s)
        left_s = min(length_s, end_s - start_s) - late_s
        if left_s > 0 or recording.windows is None:
            clips += _cut_window(recording, start_s, late_s, left_s, clip_s)
    # Windows may overlap by whole clips, and may be cut to the same begin.
    by_offset: dict[float, Clip] = {}
    for clip in clips:
        kept = by_offset.get(clip.offset_s)
        if kept is None or clip.duration_s > kept.duration_s:
            by_offset[clip.offset_s] = clip
    return list(by_offset.values())


def _cut_window(
    recording: Recording, window_s: float, late_s: float, duration_s: float, clip_s: float
) -> list[Clip]:
    """The clips of a window whose first ``late_s`` seconds are not used."""
    begin_s = window_s + late_s

    def stored(time_s: float) -> float:
        # Those of existing sets, whose digests depend on them, are not rounded.
        return round(time_s, 6) if late_s else time_s

    whole = int((duration_s + _DURATION_TOLERANCE_S) // clip_s)
    if whole > 1 and duration_s - (whole - 1) * clip_s < MIN_CLIP_S:
        whole -= 1  # what the tolerance made of less than the shortest clip
    remainder_s = duration_s - whole * clip_s
    durations_s = [clip_s] * whole
    if remainder_s >= max(clip_s / 2, MIN_CLIP_S) or not whole:
        durations_s.append(min(clip_s, max(remainder_s, 0.0)))
    maps = None
    if recording.maps is not None:
        maps = recording.maps / window_name(recording.source, recording.start_s + window_s)
    return [
        Clip(
            key="",
            source=recording.source,
            split=recording.split or "",
            truth=recording.truth,
            video=recording.video,
            audio=recording.audio,
            file=recording.file,
            start_s=stored(recording.start_s + begin_s + number * clip_s),
            offset_s=stored(begin_s + number * clip_s),
            duration_s=clip_duration_s,
            label=recording.label,
            folds=recording.folds,
            maps=maps,
            maps_offset_s=late_s + number * clip_s if maps is not None else 0.0,
            flat=recording.flat,
        )
        for number, clip_duration_s in enumerate(durations_s)
    ]


def window_name(source: str, start_s: float) -> str:
    """``{ID}-{start second}``, as YT-360 names its clips."""
    return f"{source}-{start_s:.0f}" if start_s == int(start_s) else f"{source}-{start_s:g}"


def clip_key(source: str, start_s: float) -> str:
    """A clip's key: stable, unique for (source, start), and made of ``[A-Za-z0-9_-]`` only.

    A hash is added if the source's name has other characters or is long, so that keys differ.
    """
    start = f"{start_s:.0f}" if start_s == int(start_s) else f"{round(start_s * 1000)}ms"
    slug = re.sub(r"[^A-Za-z0-9_-]+", "_", source)
    if slug != source or len(slug) > _MAX_SLUG_LENGTH:
        digest = hashlib.sha256(source.encode(errors="surrogateescape")).hexdigest()[:10]
        slug = f"{slug[: _MAX_SLUG_LENGTH - 11]}_{digest}"
    return f"{slug}-{start}"


def find_split(clip: Clip, splits: dict[str, str]) -> str | None:
    """A clip's split by its source or its file's name; None if no list names it.

    Without lists, it is the layout's split, or ``train``.
    """
    if not splits:
        return None if clip.split == UNLISTED else clip.split or DEFAULT_SPLIT
    names = (clip.source, Path(clip.file).stem, clip.file, Path(clip.file).name)
    for name in names:
        if name in splits:
            return splits[name]
    return None
