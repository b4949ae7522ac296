"""Counting the files of an input folder that are not read."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from avprep.recordings.files import FileSearch, has_suffix, is_video
from avprep.recordings.recording import AUDIO_SUFFIXES

_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
_COMPANIONS = (
    "json jsonl txt csv tsv xml yaml yml toml ini md rst pdf html htm log nfo url md5 sha1 sha256 "
    "png jpg jpeg gif webp bmp tif tiff exr hdr svg insp thm srt vtt ass ssa sub lrc sbv ttml srv1 "
    "srv2 srv3 json3 description annotations gpx kml npy npz pkl pt pth h5 hdf5 mat parquet py pyc "
    "sh bat ipynb db sqlite lock cfg rpp als m3u m3u8 asd sfk pek xmp"
)
"""Suffixes of files that are expected beside recordings, and are none."""
_UNFINISHED = (".part", ".ytdl", ".crdownload", ".partial", ".download")
_CAMERAS = {".360": "GoPro Player", ".insv": "Insta360 Studio", ".osv": "DJI Studio"}
_MOST_SHOWN = 8


def describe_not_read(search: FileSearch, with_strays: bool = False) -> str | None:
    """``not read: 3 x .360, 2 x .insv``: how many files of each suffix are not read; None for
    none.

    ``with_strays``: also audio files that no video has the name of.
    """
    expected = {f".{name}" for name in _COMPANIONS.split()}.union(AUDIO_SUFFIXES)
    others: Counter[str] = Counter()
    downloads = Counter(f".temp{path.suffix.lower()}" for path in search.unfinished)
    for path in search.seen():
        suffix = path.suffix.lower()
        if suffix.startswith(_UNFINISHED):
            downloads[_UNFINISHED[0] if suffix.startswith(".part") else suffix] += 1
        elif suffix in expected or is_video(path):
            continue
        elif _SUFFIX.fullmatch(suffix):
            others[suffix] += 1
    strays = Counter(path.suffix.lower() for path in (_strays(search) if with_strays else ()))
    parts = []
    if others:
        parts.append(f"not read: {_list(others)}")
    if downloads:
        parts.append(f"unfinished downloads: {_list(downloads)}")
    if strays:
        parts.append(f"audio without a video of its name: {_list(strays)}")
    return "; ".join(parts) or None


def to_export(search: FileSearch) -> str:
    """The beginning of a remedy if there are files that only a camera's own program reads."""
    found = sorted({path.suffix.lower() for path in search.seen()} & _CAMERAS.keys())
    programs = " and ".join(f"{suffix} files with {_CAMERAS[suffix]}" for suffix in found)
    return f"export {programs} as equirectangular video, or " if found else ""


def _strays(search: FileSearch) -> list[Path]:
    stems = {path.stem for path in search.seen() if is_video(path)}
    return [
        path
        for path in search.seen()
        if has_suffix(path, AUDIO_SUFFIXES) and path.stem not in stems and path not in search.parts
    ]


def _list(counts: Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count} x {suffix}" for suffix, count in ordered[:_MOST_SHOWN]]
    left = sum(count for _, count in ordered[_MOST_SHOWN:])
    return ", ".join(shown) + (f" and {left} of other kinds" if left else "")
