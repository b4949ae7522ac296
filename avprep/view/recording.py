"""A raw recording becomes a set of one sample, as a build would make it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from avprep.build.options import BuildOptions
from avprep.errors import UserError, one_sentence
from avprep.formats.listen import ANOTHER_CONVENTION
from avprep.recordings.beside import audio_files
from avprep.recordings.clips import DEFAULT_SPLIT, Clip, clip_key
from avprep.recordings.events import is_world_truth
from avprep.recordings.files import FileSearch
from avprep.recordings.find_clips import Examined, examine
from avprep.recordings.recording import Recording
from avprep.sample.make_sample import make_sample
from avprep.view.content import Origin
from shards.folders import LocalFolder
from shards.manifest import manifest_entry, read_index, shard_names, write_manifest
from shards.schema import Manifest
from shards.writer import open_shard


@dataclass(frozen=True)
class Excerpt:
    """The part of a video file to show; ``audio`` is the file that holds its audio (None: it is
    searched for as a build does)."""

    video: Path
    audio: Path | None
    start_s: float
    duration_s: float


def build_one_sample(folder: Path, excerpt: Excerpt, options: BuildOptions) -> Origin:
    """Build a set in the empty ``folder`` that holds the excerpt as its only sample.

    Raises UserError if the recording cannot be read: one sentence.
    """
    video = excerpt.video
    name = os.fsencode(video.name).decode(errors="replace")
    audio = excerpt.audio or _audio_of(video)
    # Generated worlds have the layout of YT-360, and the truth of each clip beside its video.
    truth = video.parent.parent / "truth" / f"{video.stem}.json"
    recording = Recording(
        source=Path(name).stem,
        video=video,
        audio=audio,
        file=name,
        truth=truth if is_world_truth(truth) else None,
    )
    examined = examine(recording, options.format_overrides)
    if isinstance(examined, str):
        raise _unreadable(name, examined)
    clip = _cut(recording, examined, excerpt)
    try:
        sample = make_sample(clip, options.clip)
    except UserError:
        raise
    except Exception as error:  # any that a broken file causes in a decoder
        raise _unreadable(name, one_sentence(error)) from None
    root, (tar, index) = LocalFolder(folder), shard_names(DEFAULT_SPLIT, 0)
    with open_shard(root, tar, index) as writer:
        writer.add(*sample)
    entry = manifest_entry(read_index(root, index), index)
    write_manifest(root, Manifest({}, {}, {DEFAULT_SPLIT: (entry,)}, plan=""))
    facts = [
        (
            "picture read as",
            f"{examined.video_format.sphere.projection}: {examined.video_format.reason}",
        ),
        ("audio read as", f"{examined.audio_format.convention}: {examined.audio_format.reason}"),
    ]
    if audio != video:
        facts.append(("audio from", os.fsencode(audio.name).decode(errors="replace")))
    here = 'which one is right can be seen and heard here, with "Read the channels as"'
    doubts = tuple(doubt.replace(ANOTHER_CONVENTION, here) for doubt in examined.doubts)
    track = None if examined.media is None else examined.media[1].audio
    count = None if track is None else track.channels
    return Origin(tuple(facts), doubts, count, examined.audio_format.channels)


def _audio_of(video: Path) -> Path:
    """The file that holds a video's audio: one of the same name beside it, or in ``audio`` beside a
    folder ``video``, as YT-360 has it; else the video itself."""
    search = FileSearch()
    found = audio_files(search, video.parent, video.stem)
    if not found and video.parent.name == "video":
        found = audio_files(search, video.parent.parent / "audio", video.stem)
    if len(found) > 1:
        beside = ", ".join(path.name for path in found)
        raise UserError(f"{video.name} has several audio files ({beside}); name one with --sound")
    return found[0] if found else video


def _cut(recording: Recording, examined: Examined, excerpt: Excerpt) -> Clip:
    start_s = max(excerpt.start_s, examined.begin_s)
    if start_s >= examined.end_s:
        raise UserError(
            f"{recording.file} ends at {examined.end_s:.1f} s, before --start {excerpt.start_s:g}"
        )
    return Clip(
        key=clip_key(recording.source, start_s),
        source=recording.source,
        split=DEFAULT_SPLIT,
        video=recording.video,
        audio=recording.audio,
        file=recording.file,
        start_s=start_s,
        offset_s=start_s,
        duration_s=min(excerpt.duration_s, examined.end_s - start_s),
        video_format=examined.video_format,
        audio_format=examined.audio_format,
        truth=recording.truth,
        media=examined.media,
    )


def _unreadable(name: str, sentence: str) -> UserError:
    return UserError(sentence if name in sentence else f"{name}: {sentence}")
