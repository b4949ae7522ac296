"""Folder layouts of datasets, and how the recordings in each are found."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from avprep.errors import UserError
from avprep.formats.container_tags import read_info_json
from avprep.recordings.beside import audio_files, download_parts, is_audio_of_another
from avprep.recordings.events import is_world_truth
from avprep.recordings.files import FileSearch, has_suffix, is_folder, is_video
from avprep.recordings.labelled import FLAT_LAYOUTS, detect_labelled
from avprep.recordings.lists import read_segments
from avprep.recordings.not_read import describe_not_read, to_export
from avprep.recordings.recording import VIDEO_SUFFIXES, Failure, Recording

_YT360_CLIP_S = 10.0
_YT360_NAME = re.compile(r"(?P<source>.+)-(?P<start>\d+(\.\d+)?)")
_SPHERE360_NAME = re.compile(r"(?P<source>[\w-]{11})_(?P<start>\d+(\.\d+)?)")
_SEGMENTS_NAME = "segments.txt"
_YOUTUBE_ID_LENGTH = 11
_FIRST_SUFFIXES = VIDEO_SUFFIXES[:5]
_STARSS_SPLITS = {"dev-train": "train", "dev-test": "test", "eval": "eval"}

_Found = tuple[list[Recording], list[Failure]]


@dataclass(frozen=True)
class FoundRecordings:
    """The recordings in a folder, sorted, those that failed, the layout, a sentence on the files
    that are not read, if there are any, and the failures' reasons that are about folders."""

    recordings: list[Recording]
    failures: list[Failure]
    layout: str
    not_read: str | None = None
    unreadable: tuple[str, ...] = ()


def find_recordings(
    raw: Path,
    layout: str,
    segments: Path | None = None,
    lists: Path | None = None,
    may_be_empty: bool = False,
) -> FoundRecordings:
    """The recordings in ``raw``.

    ``segments`` lists the seconds at which clips of each recording begin; ``lists`` is the folder
    of a layout's official split lists, if it is not ``raw``. Raises UserError if there are no
    recordings, unless it ``may_be_empty``.
    """
    try:
        is_there = raw.is_dir()
    except OSError as error:
        raise UserError(f"{raw} cannot be read ({error.strerror}); allow it") from None
    if not is_there:
        raise UserError(f"{raw} is not a folder; name the folder that holds the recordings")
    search = FileSearch()
    if layout == "auto":
        layout = _detect_layout(raw, search)
    if layout in FLAT_LAYOUTS:
        reader = FLAT_LAYOUTS[layout]
        recordings, failures = reader(raw, raw if lists is None else lists, search)
    else:
        recordings, failures = _READERS[layout](raw, search)
    if segments is None and layout == "yt360" and os.path.lexists(raw / _SEGMENTS_NAME):
        segments = raw / _SEGMENTS_NAME
    if segments is not None:
        recordings, unlisted = _in_segments(recordings, segments)
        failures += unlisted
    valid = [r for r in recordings if _printable(r.file) == r.file]
    failures += [
        Failure(r.source, "find", f"the name of {r.file} is not valid UTF-8; rename it")
        for r in recordings
        if _printable(r.file) != r.file
    ]
    failures += search.failures(raw)
    failures = [Failure(_printable(f.source), f.stage, _printable(f.reason)) for f in failures]
    unreadable = tuple(_printable(failure.reason) for failure in search.failures(raw))
    with_strays = layout not in FLAT_LAYOUTS and layout != "starss"
    not_read = describe_not_read(search, with_strays)
    if not valid and not failures and not may_be_empty:
        instead = f" ({not_read})" if not_read is not None else ""
        raise UserError(
            f"{raw} holds no video ({', '.join(VIDEO_SUFFIXES)}) of layout {layout}{instead}; "
            f"{to_export(search)}name the folder that holds the recordings, and see --layout"
        )
    return FoundRecordings(valid, failures, layout, not_read, unreadable)


def _in_segments(recordings: list[Recording], path: Path) -> _Found:
    """Whole recordings with windows at the listed seconds; parts of recordings stay unchanged."""
    starts = read_segments(path)
    listed, failures = [], []
    for recording in recordings:
        if recording.duration_s is not None or recording.start_s:
            listed.append(recording)
        elif recording.source in starts:
            windows = tuple((start_s, _YT360_CLIP_S) for start_s in starts[recording.source])
            listed.append(replace(recording, windows=windows))
        else:
            reason = f"{recording.file} is not listed in {path.name}; add it, or remove the file"
            failures.append(Failure(recording.source, "find", reason))
    return listed, failures


def _detect_layout(raw: Path, search: FileSearch) -> str:
    """The layout of a folder, by folders and file names that only this layout has."""
    if is_folder(raw / "foa_dev") or is_folder(raw / "foa_eval"):
        return "starss"
    if is_folder(raw / "video") and is_folder(raw / "audio"):
        names = [path.stem for path in search.files(raw / "video", recursive=False)]
        ambigen = sum(_SPHERE360_NAME.fullmatch(name) is not None for name in names)
        yt360 = sum(_YT360_NAME.fullmatch(name) is not None for name in names)
        return "yt-ambigen" if ambigen > yt360 else "yt360"
    files = search.files(raw, recursive=True)
    if any(path.name.endswith(".info.json") for path in files):
        return "yt-dlp"
    labelled = detect_labelled(raw, files)
    if labelled is not None:
        return labelled
    videos = [path for path in files if is_video(path)]
    if videos and all(
        path.suffix.lower() == ".webm" and _SPHERE360_NAME.fullmatch(path.stem) for path in videos
    ):
        return "sphere360"
    return "folder"


def _printable(name: str) -> str:
    """A file's name, with bytes that are not UTF-8 replaced."""
    return os.fsencode(name).decode(errors="replace")


def _folder(raw: Path, search: FileSearch) -> _Found:
    """Every video below ``raw`` is a recording; an audio file of the same name replaces its
    audio. A download that yt-dlp has not merged is one recording of two files."""
    files = search.files(raw, recursive=True)
    parts = download_parts(search, files)
    search.unfinished, search.parts = parts.unfinished, parts.no_recordings
    videos = [
        path
        for path in files
        if is_video(path)
        and path not in parts.no_recordings
        and not is_audio_of_another(search, path)
    ]
    names = _short_names(videos)
    recordings, failures = [], []
    for video in videos:
        relative = video.relative_to(raw)
        source = names.get(video, video).relative_to(raw).as_posix()
        audio = audio_files(search, video.parent, video.stem)
        if video in parts.pairs:
            part, name = parts.pairs[video]
            source, audio = name.relative_to(raw).as_posix(), [part]
        if len(audio) > 1:
            beside = ", ".join(path.name for path in audio)
            reason = f"{relative} has several audio files beside it ({beside}); keep the right one"
            failures.append(Failure(source, "find", reason))
        else:
            file = relative.as_posix()
            recordings.append(Recording(source, video, audio[0] if audio else video, file))
    for name, paths in parts.unclear.items():
        source = name.relative_to(raw).as_posix()
        reason = (
            f"{source} was not merged and has several parts "
            f"({', '.join(path.name for path in paths)}); keep one video and one audio part"
        )
        failures.append(Failure(source, "find", reason))
    return recordings, failures


def _short_names(videos: list[Path]) -> dict[Path, Path]:
    """Paths without suffix, for videos that no other has the name of. A video of the kinds that
    were read first keeps it if another kind shares it, so that keys of existing sets stay."""
    first = Counter(path.with_suffix("") for path in videos if has_suffix(path, _FIRST_SUFFIXES))
    every = Counter(path.with_suffix("") for path in videos)
    short = {}
    for video in videos:
        counts = first if has_suffix(video, _FIRST_SUFFIXES) else every
        if counts[video.with_suffix("")] == 1:
            short[video] = video.with_suffix("")
    return short


def _yt360(raw: Path, search: FileSearch) -> _Found:
    """``video/{ID}-{start}.mp4`` with ``audio/{ID}-{start}.m4a`` (or another audio format), 10 s
    each; or whole recordings as ``{ID}``; and ``segmentation/{ID}-{start}/`` with label maps.

    Generated clips have their truth in ``truth/{ID}-{start}.json``; files of that name that do not
    identify themselves as such are ignored.
    """
    videos, audio = raw / "video", raw / "audio"
    recordings, failures = _named(search, raw, videos, _YT360_NAME, audio, "{ID}-{second}")
    maps = raw / "segmentation"
    found = []
    for recording in recordings:
        # An id has 11 characters and may itself end in a dash and digits.
        stem = Path(recording.file).stem
        if len(stem) == _YOUTUBE_ID_LENGTH:
            recording = replace(recording, source=stem, start_s=0.0)
        else:
            truth = raw / "truth" / f"{stem}.json"
            recording = replace(
                recording,
                duration_s=_YT360_CLIP_S,
                formats_known=True,
                truth=truth if is_world_truth(truth) else None,
            )
        found.append(replace(recording, maps=maps) if is_folder(maps) else recording)
    return found, failures


def _sphere360(raw: Path, search: FileSearch) -> _Found:
    """``{ID}_{start second}.webm`` anywhere, with four audio channels inside."""
    return _named(search, raw, raw, _SPHERE360_NAME, None, "{ID}_{second}")


def _yt_ambigen(raw: Path, search: FileSearch) -> _Found:
    """``video/{ID}_{start second}.mp4`` with ``audio/{ID}_{start second}.opus``."""
    videos, audio = raw / "video", raw / "audio"
    return _named(search, raw, videos, _SPHERE360_NAME, audio, "{ID}_{second}")


def _named(
    search: FileSearch,
    raw: Path,
    videos: Path,
    pattern: re.Pattern[str],
    audio_folder: Path | None,
    form: str,
) -> _Found:
    """Videos whose names hold id and start, as ``form`` shows.

    Audio files have the same names in ``audio_folder``; None: audio is inside the video files.
    """
    recordings, failures = [], []
    for video in search.files(videos, recursive=audio_folder is None):
        if not is_video(video):
            continue
        relative = video.relative_to(raw).as_posix()
        match = pattern.fullmatch(video.stem)
        audio = [video]
        if audio_folder is not None:
            audio = audio_files(search, audio_folder, video.stem)
        if match is None and len(video.stem) != _YOUTUBE_ID_LENGTH:
            reason = f"{relative} is not named {form}, as clips of this layout are"
            failures.append(Failure(video.stem, "find", reason))
        elif len(audio) != 1:
            found = "several audio files" if audio else "no audio file"
            reason = (
                f"{relative} has {found} audio/{video.stem}.m4a (or .opus, .wav, .flac, .ogg); "
                "there must be one"
            )
            failures.append(Failure(match["source"] if match else video.stem, "find", reason))
        else:
            source, start_s = (match["source"], float(match["start"])) if match else (video.stem, 0)
            recordings.append(Recording(source, video, audio[0], relative, start_s))
    return recordings, failures


def _starss(raw: Path, search: FileSearch) -> _Found:
    """``foa_dev/…/NAME.wav`` with ``video_dev/…/NAME.mp4`` and ``metadata_dev/…/NAME.csv``.

    Folders ``dev-train-…`` and ``dev-test-…`` are the splits. STARSS22 has no video.
    """
    recordings, failures = [], []
    for audio in search.files(raw, recursive=True):
        folder = audio.relative_to(raw).parts[0]
        if audio.suffix.lower() != ".wav" or not folder.startswith("foa_"):
            continue
        inside = audio.relative_to(raw / folder)
        part = folder.removeprefix("foa_")
        beside = search.with_stem((raw / f"video_{part}" / inside).parent, inside.stem)
        videos = [path for path in beside if is_video(path)]
        videos = [path for path in videos if path.suffix == ".mp4"] or videos
        labels = search.with_stem((raw / f"metadata_{part}" / inside).parent, inside.stem)
        split = next((s for name, s in _STARSS_SPLITS.items() if name in inside.as_posix()), None)
        if len(videos) != 1:
            where = f"video_{part}/{inside.with_suffix('.mp4').as_posix()}"
            found = f"several videos {where}" if videos else f"no video {where}"
            remedy = "keep the right one" if videos else "download it as well"
            reason = f"{audio.relative_to(raw).as_posix()} has {found}; {remedy}"
            failures.append(Failure(audio.stem, "find", reason))
            continue
        recordings.append(
            Recording(
                audio.stem,
                videos[0],
                audio,
                videos[0].relative_to(raw).as_posix(),
                split=split,
                truth=next((path for path in labels if has_suffix(path, (".csv",))), None),
            )
        )
    return recordings, failures


def _yt_dlp(raw: Path, search: FileSearch) -> _Found:
    """A folder of yt-dlp's downloads; ``.info.json`` beside a video holds its id and projection."""
    recordings, failures = _folder(raw, search)
    named = []
    for recording in recordings:
        source = read_info_json(recording.video)[0].id
        if not source or not source.isprintable():
            source = recording.source
        named.append(replace(recording, source=source))
    return named, failures


_READERS: dict[str, Callable[[Path, FileSearch], _Found]] = {
    "folder": _folder,
    "yt360": _yt360,
    "sphere360": _sphere360,
    "yt-ambigen": _yt_ambigen,
    "starss": _starss,
    "yt-dlp": _yt_dlp,
}
