"""Choose which of a file's tracks are read: the picture, not a cover; the ambisonics, not a mix."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

from avprep.errors import ClipError
from avprep.foa.ambix import HIGHER_ORDERS
from avprep.formats.audio_tags import read_audio_tags, unreadable_audio
from avprep.formats.decide import FormatOverrides
from avprep.media.probe import Media, check_tracks
from avprep.media.tracks import AudioTrack, Tracks, VideoTrack

_AMBISONIC_CHANNELS = (4, 6, *HIGHER_ORDERS)
_HEAD_LOCKED = 2
"""Channels of head-locked stereo that may follow an order's own."""
_EAC_ROW_ASPECT = 2.5
"""Two tracks of this aspect or wider are the rows of an equi-angular cubemap, as GoPro's are."""


def choose_video(path: Path, media: Media, number: int | None = None) -> Media:
    """The media with the video track to read: the only one, or of several that are no stills track
    ``number`` of the file, or else the only one that lasts as long as the file.

    Raises ClipError, which lists the tracks, if there is no such track or more than one.
    """
    moving = [track for track in media.tracks.videos if not track.is_still]
    if number is not None and len(moving) > 1:
        chosen = [track for track in moving if track.index == number]
        if not chosen:
            raise ClipError(
                f"{path.name} has no video track {number}; it has {_listed(media.tracks)}: give "
                "one of its video tracks with --video-track"
            )
        return replace(media, video=chosen[0])
    longest_s = max((_length_s(track, media) for track in moving), default=0.0)
    full = [track for track in moving if _length_s(track, media) >= longest_s / 2]
    if len(full) > 1:
        a, b = full[:2]
        if (a.width, a.height) == (b.width, b.height) and a.width >= _EAC_ROW_ASPECT * a.height:
            raise ClipError(
                f"{path.name} holds its picture in two tracks ({a.description} and "
                f"{b.description}), as GoPro's .360 files do, which are not supported; export it "
                "as equirectangular video with GoPro Player"
            )
        raise ClipError(
            f"{path.name} has several video tracks ({_joined(full)}); name the one to use with "
            "--video-track"
        )
    return replace(media, video=full[0] if full else None)


def choose_audio(path: Path, media: Media, overrides: FormatOverrides) -> tuple[Media, str]:
    """The media with the audio track to read, and a sentence that says which if it is not the
    first: of several, the one that the user names, else the only one that can be ambisonics.

    Raises ClipError, which lists the tracks, if there is none or more than one.
    """
    tracks, number = media.tracks.audios, overrides.audio_track
    unreadable = unreadable_audio(path) if not tracks else None
    if unreadable is not None:
        raise ClipError(unreadable)
    if len(tracks) < 2:
        return media, ""
    if number is not None:
        chosen = [track for track in tracks if track.index == number]
        if not chosen:
            raise ClipError(
                f"{path.name} has no audio track {number}; it has {_listed(media.tracks)}: give "
                "one of its audio tracks with --audio-track"
            )
        return replace(media, audio=chosen[0]), ""
    _refuse_parts(path, tracks)
    able = [track for track in tracks if _can_be_ambisonics(track, overrides)]
    if len(able) > 1:
        tagged = [track for track in able if read_audio_tags(path, track) is not None]
        able = tagged if len(tagged) == 1 else able
    if not able:
        raise ClipError(
            f"{path.name} has no ambisonics among its audio tracks ({_joined(tracks)}; first order "
            "has 4 channels); put the ambisonic sound beside it as a file of the same name"
        )
    if len(able) > 1:
        raise ClipError(
            f"{path.name} has several audio tracks that can be ambisonics ({_joined(able)}); name "
            "the one to use with --audio-track"
        )
    note = ""
    if able[0] is not tracks[0]:
        others = [track for track in tracks if track is not able[0]]
        note = (
            f"its sound is {able[0].description}, since {_joined(others)} cannot be ambisonics; "
            "--audio-track names another"
        )
    return replace(media, audio=able[0]), note


def choose_tracks(
    paths: tuple[Path, Path], media: tuple[Media, Media], overrides: FormatOverrides, flat: bool
) -> tuple[tuple[Media, Media], tuple[str, ...]]:
    """A recording's video and audio file, which may be the same, with the tracks to read; and
    sentences that say what is not as usual. Raises ClipError.

    Of an ordinary video (``flat``), which need not have ambisonics, the first audio is read.
    """
    video = choose_video(paths[0], media[0], overrides.video_track)
    audio, note = video if paths[0] == paths[1] else media[1], ""
    if not flat:
        audio, note = choose_audio(paths[1], audio, overrides)
    if paths[0] == paths[1]:
        video = audio
    check_tracks(paths[0].name, replace(video, audio=None))
    check_tracks(paths[1].name, replace(audio, video=None))
    return (video, audio), (note,) if note else ()


def no_track(name: str, kind: str, media: Media, remedy: str) -> ClipError:
    """The error for a file without a track of a kind (video or audio); it names the other tracks
    that are neither, or cannot be read."""
    stills = [track.description for track in media.tracks.videos if track.is_still]
    names = ", ".join((*stills, *media.tracks.others))
    return ClipError(f"{name} has no {kind} track{f', only {names}' if names else ''}; {remedy}")


def _can_be_ambisonics(track: AudioTrack, overrides: FormatOverrides) -> bool:
    if overrides.foa_convention != "auto":
        return track.channels >= 4
    orders = (*_AMBISONIC_CHANNELS, *(n + _HEAD_LOCKED for n in (4, *HIGHER_ORDERS)))
    return track.channels in orders


def _refuse_parts(path: Path, tracks: tuple[AudioTrack, ...]) -> None:
    """Raise ClipError for audio whose channels are spread over several tracks."""
    if any(track.is_dependent for track in tracks):
        raise ClipError(
            f"{path.name} holds its sound as IAMF, in parts ({_joined(tracks)}), which is not "
            "supported; export it as one track of four channels (ambiX)"
        )
    if len(tracks) >= 4 and all(track.channels == 1 for track in tracks):
        inputs = "".join(f"[0:{track.index}]" for track in tracks[:4])
        raise ClipError(
            f"{path.name} has {len(tracks)} audio tracks of one channel each; if the first four "
            "are W, Y, Z and X, make one track of them: ffmpeg -i IN -filter_complex "
            f"'{inputs}amerge=inputs=4[a]' -map 0:v -map '[a]' -c:v copy -c:a pcm_s24le OUT.mov"
        )


def _length_s(track: VideoTrack, media: Media) -> float:
    end_s = track.end_s
    if end_s is None:
        end_s = media.start_s + media.duration_s if media.duration_s else inf
    return end_s - track.begin_s


def _joined(tracks: list[VideoTrack] | list[AudioTrack] | tuple[AudioTrack, ...]) -> str:
    *names, last = (track.description for track in tracks)
    return f"{', '.join(names)} and {last}" if names else last


def _listed(tracks: Tracks) -> str:
    every: list[VideoTrack | AudioTrack] = [*tracks.videos, *tracks.audios]
    every.sort(key=lambda track: track.index)
    return ", ".join((*(track.description for track in every), *tracks.others)) or "no tracks"
