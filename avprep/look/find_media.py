"""Find the files to inspect, as builds find recordings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avprep.errors import UserError
from avprep.recordings.beside import download_parts, separate_audio
from avprep.recordings.files import FileSearch, has_suffix, is_video
from avprep.recordings.not_read import describe_not_read
from avprep.recordings.recording import AUDIO_SUFFIXES


@dataclass(frozen=True)
class MediaFile:
    """A file to inspect, and the audio file that a build uses instead of its own track."""

    path: Path
    separate: Path | None


@dataclass(frozen=True)
class MediaFiles:
    """The files to inspect, and sentences on what was not read, and on what could not be."""

    files: list[MediaFile]
    not_read: tuple[str, ...]
    unreadable: tuple[str, ...]


def find_media_files(paths: tuple[Path, ...]) -> MediaFiles:
    """The files among ``paths``, and the media files in its folders. Raises UserError if there are
    none."""
    found: list[Path] = []
    search = FileSearch()
    for path in paths:
        if path.is_dir():
            files = search.files(path, recursive=True)
            parts = download_parts(search, files)
            search.unfinished |= parts.unfinished
            left_over = parts.left_over | parts.unfinished
            media = (p for p in files if is_video(p) or has_suffix(p, AUDIO_SUFFIXES))
            found += [p for p in media if p not in left_over]
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"{path} does not exist")
    not_read = describe_not_read(search)
    unreadable = [f"{path} {why}" for path, why in sorted(search.unreadable.items())]
    if not found and not unreadable:
        instead = f" ({not_read})" if not_read is not None else ""
        raise UserError(f"{', '.join(map(str, paths))} holds no video or sound{instead}")
    return MediaFiles(
        [MediaFile(p, separate_audio(search, p) if is_video(p) else None) for p in found],
        (not_read,) if not_read is not None else (),
        tuple(unreadable),
    )
