"""Cutting recordings into clips, each with a key and a split of its own."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from avprep.formats.decide import PictureFormat, SoundFormat
from avprep.media.probe import Media
from avprep.recordings.lists import UNLISTED
from avprep.recordings.recording import Recording

SHORTEST_CLIP_S = 1.0
DEFAULT_SPLIT = "train"
_LONGEST_KEY = 64
_DURATION_TOLERANCE_S = 0.25


@dataclass(frozen=True)
class Clip:
    """A clip to be made: ``duration_s`` seconds from ``offset_s`` in its files.

    ``start_s`` is the same moment in the original recording ``source``, of which the files may be
    a part; ``file`` is the video's path relative to the input folder; ``picture`` and ``sound``
    say how the files are to be read. ``maps`` is a folder of label maps, and the clip begins at
    ``maps_offset_s`` of what they are of. ``flat``: it is an ordinary video, not of the sphere.
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
    picture: PictureFormat = PictureFormat()  # noqa: RUF009
    sound: SoundFormat = SoundFormat()  # noqa: RUF009
    label: str | None = None
    folds: tuple[str, ...] | None = None
    truth: Path | None = None
    maps: Path | None = None
    maps_offset_s: float = 0.0
    flat: bool = False
    media: tuple[Media, Media] | None = None
    """What video and audio file hold, if that is known already."""


def cut(recording: Recording, duration_s: float, clip_s: float) -> list[Clip]:
    """Consecutive clips of ``clip_s`` seconds; a rest of at least half a clip is one as well.

    A recording, or a wanted window of it, that is shorter than a clip is one clip; a window that
    begins after the end is none. The clips' ``key`` and ``split`` are still empty.
    """
    clips = []
    for start_s, length_s in recording.windows or ((0.0, duration_s),):
        left_s = min(length_s, duration_s - start_s)
        if left_s > 0 or recording.windows is None:
            clips += _cut_window(recording, start_s, left_s, clip_s)
    # Windows may overlap by whole clips.
    return list({clip.offset_s: clip for clip in reversed(clips)}.values())[::-1]


def _cut_window(
    recording: Recording, window_s: float, duration_s: float, clip_s: float
) -> list[Clip]:
    whole = int((duration_s + _DURATION_TOLERANCE_S) // clip_s)
    rest = duration_s - whole * clip_s
    lengths = [clip_s] * whole
    if rest >= max(clip_s / 2, SHORTEST_CLIP_S) or not whole:
        lengths.append(min(clip_s, max(rest, 0.0)))
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
            start_s=recording.start_s + window_s + number * clip_s,
            offset_s=window_s + number * clip_s,
            duration_s=length,
            label=recording.label,
            folds=recording.folds,
            maps=maps,
            maps_offset_s=number * clip_s if maps is not None else 0.0,
            flat=recording.flat,
        )
        for number, length in enumerate(lengths)
    ]


def window_name(source: str, start_s: float) -> str:
    """``{ID}-{start second}``, as YT-360 names its clips."""
    return f"{source}-{start_s:.0f}" if start_s == int(start_s) else f"{source}-{start_s:g}"


def clip_key(source: str, start_s: float) -> str:
    """The key of a clip, of ``[A-Za-z0-9_-]`` alone: stable, and unique for (source, start).

    Where the source's name has other characters or is long, a hash of it keeps keys apart.
    """
    start = f"{start_s:.0f}" if start_s == int(start_s) else f"{round(start_s * 1000)}ms"
    slug = re.sub(r"[^A-Za-z0-9_-]+", "_", source)
    if slug != source or len(slug) > _LONGEST_KEY:
        digest = hashlib.sha256(source.encode(errors="surrogateescape")).hexdigest()[:10]
        slug = f"{slug[: _LONGEST_KEY - 11]}_{digest}"
    return f"{slug}-{start}"


def split_of(clip: Clip, splits: dict[str, str]) -> str | None:
    """A clip's split by its source, its key or its file's name; None where no list has it.

    Without lists it is the layout's, or ``train``.
    """
    if not splits:
        return None if clip.split == UNLISTED else clip.split or DEFAULT_SPLIT
    names = (clip.source, Path(clip.file).stem, clip.file, Path(clip.file).name)
    for name in names:
        if name in splits:
            return splits[name]
    return None
