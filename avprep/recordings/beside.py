"""Files that belong to one recording: a video's audio file, and the parts that yt-dlp keeps."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from avprep.formats.matroska import read_matroska_tracks
from avprep.formats.mp4_boxes import read_mp4_index
from avprep.recordings.files import FileSearch, has_suffix, is_video
from avprep.recordings.recording import AUDIO_SUFFIXES, MEDIA_SUFFIXES

_PART = re.compile(r"(?P<name>.+)\.(?P<kind>f\d[\w+-]*|temp)")
"""The stem of a part that yt-dlp downloads (``NAME.f313.webm``) or is merging (``NAME.temp``)."""
_TEMPORARY = ".temp"
_BOTH = {"video", "audio"}
_KINDS: dict[int | bytes, str] = {1: "video", 2: "audio", b"vide": "video", b"soun": "audio"}
"""Kinds of tracks, as Matroska and as mp4 number or name them."""


def audio_files(search: FileSearch, folder: Path, stem: str) -> list[Path]:
    """The audio files of a folder that belong to the video named ``stem``.

    A ``.webm`` without video is one if there is no other.
    """
    same = search.with_stem(folder, stem)
    found = [path for path in same if has_suffix(path, AUDIO_SUFFIXES)]
    if found:
        return sorted(found, key=lambda path: AUDIO_SUFFIXES.index(path.suffix.lower()))
    return [path for path in same if path.suffix.lower() == ".webm" and _is_audio(path)]


def is_audio_of_another(search: FileSearch, video: Path) -> bool:
    """Whether a ``.webm`` holds no video, and another file of its name does."""
    return (
        video.suffix.lower() == ".webm"
        and any(
            path.suffix.lower() != ".webm" and is_video(path)
            for path in search.with_stem(video.parent, video.stem)
        )
        and _is_audio(video)
    )


def track_kinds(path: Path) -> frozenset[str]:
    """``video`` and ``audio``, as far as an mp4, mov, Matroska or WebM file has such tracks; empty
    for other files and for damaged ones."""
    try:
        tracks = read_matroska_tracks(path)
        index = read_mp4_index(path) if tracks is None else None
    except OSError:
        return frozenset()
    found = {_KINDS.get(track.kind, "") for track in tracks or ()}
    found |= {_KINDS.get(track.kind, "") for track in (index.tracks if index is not None else ())}
    return frozenset(found - {""})


def _is_audio(path: Path) -> bool:
    return track_kinds(path) == {"audio"}


@dataclass
class DownloadParts:
    """What yt-dlp left in a folder beside its downloads.

    ``left_over`` are files that the merged file replaces, ``unfinished`` ones that yt-dlp was
    writing. ``pairs`` maps the video of a download that was not merged to its audio and its name,
    and ``unclear`` maps such a name to its parts if there are several of a kind.
    """

    left_over: set[Path] = field(default_factory=set)
    unfinished: set[Path] = field(default_factory=set)
    pairs: dict[Path, tuple[Path, Path]] = field(default_factory=dict)
    unclear: dict[Path, list[Path]] = field(default_factory=dict)

    @property
    def no_recordings(self) -> set[Path]:
        """The files that are not recordings by themselves."""
        audios = {audio for audio, _ in self.pairs.values()}
        unclear = {path for paths in self.unclear.values() for path in paths}
        return self.left_over | self.unfinished | audios | unclear


def download_parts(search: FileSearch, files: list[Path]) -> DownloadParts:
    """Find the parts among ``files``, by their names and the tracks that they lack."""
    groups: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in files:
        match = _PART.fullmatch(path.stem)
        if match is not None and has_suffix(path, MEDIA_SUFFIXES):
            groups[path.with_name(match["name"])].append(path)
    found = DownloadParts()
    for name, paths in groups.items():
        _sort_group(search, name, paths, found)
    return found


def _sort_group(search: FileSearch, name: Path, paths: list[Path], found: DownloadParts) -> None:
    merged = any(is_video(path) for path in search.with_stem(name.parent, name.name))
    has_info = bool(search.with_stem(name.parent, f"{name.name}.info"))
    temporary = {path for path in paths if path.stem.endswith(_TEMPORARY)}
    videos, audios = [], []
    for path in paths:
        if path in temporary:
            continue
        if len(search.with_stem(path.parent, path.stem)) > 1:
            continue  # a recording of this name, with a file of its own beside it
        if merged:
            if has_info or track_kinds(path) != _BOTH:
                found.left_over.add(path)
        elif has_suffix(path, AUDIO_SUFFIXES) or _is_audio(path):
            audios.append(path)
        elif track_kinds(path) == {"video"}:
            videos.append(path)
    if has_info or videos or audios or not found.left_over.isdisjoint(paths):
        found.unfinished |= temporary
    if len(videos) == len(audios) == 1:
        found.pairs[videos[0]] = (audios[0], name)
    elif videos and audios:
        found.unclear[name] = videos + audios


def separate_audio(search: FileSearch, video: Path) -> Path | None:
    """The audio file that a build uses instead of the track inside a video; None if there is none,
    or several."""
    folder, stem = video.parent, video.stem
    found = audio_files(search, folder, stem)
    if folder.name == "video":
        found += audio_files(search, folder.parent / "audio", stem)
    for above in folder.parents:
        inside = folder.relative_to(above)
        if inside.parts[0].startswith("video_"):  # as in STARSS
            part = inside.parts[0].removeprefix("video_")
            found += audio_files(search, above / f"foa_{part}" / Path(*inside.parts[1:]), stem)
    if _PART.fullmatch(stem):
        pair = download_parts(search, search.files(folder, recursive=False)).pairs.get(video)
        found += [pair[0]] if pair is not None else []
    return found[0] if len(found) == 1 else None
