"""The files in an input folder: hidden ones left out, links followed, unreadable folders named."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from avprep.recordings.recording import MEDIA_SUFFIXES, VIDEO_SUFFIXES, Failure
from shards.files import open_regular

_HIDDEN = frozenset(
    {
        *("__MACOSX", "@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot"),
        *("$RECYCLE.BIN", "System Volume Information", "lost+found"),
    }
)
"""Folders of operating systems and network drives, as hidden as names that begin with a dot."""
_ALSO_TEXT = (".ts", ".mts")
_TEXT_SUFFIXES = (".txt", ".csv", ".json")
"""Lists and labels, which nobody would miss if a pipe of their name were passed over."""
_TEXT_BYTES = 512


@dataclass
class _Listing:
    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    """Links to folders."""


class FileSearch:
    """Lists folders, each once. ``unreadable`` maps each folder or link that could not be read to
    the reason. A layout puts into ``unfinished`` what a download was writing, and into ``parts``
    what belongs to a download of another name.

    Links to folders are entered, so that a dataset may lie on several disks, but each folder only
    once, and never by a link to one that contains the link. A folder's own path is preferred to a
    link.
    """

    def __init__(self) -> None:
        self.unreadable: dict[Path, str] = {}
        self.unfinished: set[Path] = set()
        self.parts: set[Path] = set()
        self._listings: dict[Path, _Listing] = {}
        self._found: dict[Path, list[Path]] = {}
        self._by_stem: dict[Path, defaultdict[str, list[Path]]] = {}

    def files(self, folder: Path, recursive: bool) -> list[Path]:
        """The files in a folder, sorted, without hidden ones."""
        if not recursive:
            return self._list(folder).files
        if folder not in self._found:
            self._found[folder] = self._below(folder)
        return self._found[folder]

    def with_stem(self, folder: Path, stem: str) -> list[Path]:
        """The files in a folder whose names are ``stem`` and a suffix."""
        if folder not in self._by_stem:
            by_stem = self._by_stem[folder] = defaultdict(list)
            for path in self._list(folder).files:
                by_stem[path.stem].append(path)
        return self._by_stem[folder].get(stem, [])

    def seen(self) -> list[Path]:
        """All files that were listed."""
        return [path for listing in self._listings.values() for path in listing.files]

    def failures(self, raw: Path) -> list[Failure]:
        """What could not be read below ``raw``."""
        found = []
        for path, why in sorted(self.unreadable.items()):
            inside = path != raw and path.is_relative_to(raw)
            name = path.relative_to(raw).as_posix() if inside else str(path)
            found.append(Failure(name, "find", f"{name} {why}"))
        return found

    def _below(self, top: Path) -> list[Path]:
        found: list[Path] = []
        top_real = _real(top)
        entered = {top_real}
        waiting = [(top, top_real)]
        while waiting:
            links = []
            while waiting:
                folder, real = waiting.pop()
                listing = self._list(folder)
                found += listing.files
                links += listing.links
                for inner in listing.folders:
                    if real / inner.name not in entered:
                        entered.add(real / inner.name)
                        waiting.append((inner, real / inner.name))
            for link in sorted(links):
                real = _real(link)
                homes = (_real(link.parent), top_real)
                if real not in entered and not any(home.is_relative_to(real) for home in homes):
                    entered.add(real)
                    waiting.append((link, real))
        return sorted(found)

    def _list(self, folder: Path) -> _Listing:
        if folder in self._listings:
            return self._listings[folder]
        listing = self._listings[folder] = _Listing()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.name.startswith(".") and entry.name not in _HIDDEN:
                        self._sort(listing, folder / entry.name, entry)
        except (FileNotFoundError, NotADirectoryError):
            pass  # a layout's folder may be missing
        except OSError as error:
            self.unreadable[folder] = f"cannot be read ({error.strerror}); allow it, or move it"
        for names in (listing.files, listing.folders, listing.links):
            names.sort()
        return listing

    def _sort(self, listing: _Listing, path: Path, entry: os.DirEntry[str]) -> None:
        try:
            if entry.is_dir():
                (listing.links if entry.is_symlink() else listing.folders).append(path)
            elif entry.is_file():
                listing.files.append(path)
            elif path.exists():
                if has_suffix(path, (*MEDIA_SUFFIXES, *_TEXT_SUFFIXES)):
                    self.unreadable[path] = "is not a regular file; remove it, or put a file there"
            elif entry.is_symlink() and (not path.suffix or has_suffix(path, MEDIA_SUFFIXES)):
                where = f"{path.readlink()}, which does not exist"
                self.unreadable[path] = f"is a link to {where}; mend or remove the link"
        except OSError as error:
            self.unreadable[path] = f"cannot be read ({error.strerror}); allow it, or move it"


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def is_folder(path: Path) -> bool:
    """Whether a path is a folder, as far as this user may see."""
    try:
        return path.is_dir()
    except OSError:
        return False


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a file has one of the suffixes, in lower or upper case."""
    return path.suffix.lower() in suffixes


def is_video(path: Path) -> bool:
    """Whether a file has the suffix of a video. ``.ts`` and ``.mts`` are also those of programs,
    which are text."""
    return has_suffix(path, VIDEO_SUFFIXES) and not (
        has_suffix(path, _ALSO_TEXT) and _is_text(path)
    )


def _is_text(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            head = file.read(_TEXT_BYTES)
    except OSError:
        return False
    return bool(head) and not any(byte < 32 and byte not in b"\t\n\r\f" for byte in head)
