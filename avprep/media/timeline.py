"""The common time of a recording's video and audio: its origin, and when both exist."""

from __future__ import annotations

import math
from dataclasses import dataclass

from avprep.media.probe import Media
from avprep.media.tracks import TRACK_TOLERANCE_S, AudioTrack, VideoTrack

_ONE_TIMELINE_S = 5.0
_TRANSPORT = "mpegts"


@dataclass(frozen=True)
class Timeline:
    """When a recording's video and audio exist.

    ``video_zero_s`` and ``audio_zero_s`` are the common origin as a time stamp in the video file
    and in the audio file. Both tracks exist from ``begin_s`` to ``end_s``, in seconds after the
    origin (infinite if no file states its duration). ``planned_end_s`` is the end of the last clip:
    that of the video's file, or ``end_s`` if it is clearly earlier. ``cuts`` are sentences on what
    exists in one track only.
    """

    video_zero_s: float
    audio_zero_s: float
    begin_s: float
    end_s: float
    planned_end_s: float
    cuts: tuple[str, ...] = ()


def shared_timeline(video: Media, audio: Media, same_file: bool, flat: bool) -> Timeline:
    """The common time of the chosen video track and audio track of two files, or of one.

    Players count from the start of a file's first track. Two files are aligned by their time stamps
    if they start at about the same time, as files extracted from one file do. Otherwise, and if a
    container has no time stamps, each file counts from its own start. Tracks that begin or end
    within `TRACK_TOLERANCE_S` of their file do so with it. The audio of an ordinary video
    (``flat``) may be missing or shorter: the video alone counts.
    """
    video_zero = audio_zero = video.start_s
    if not same_file:
        apart = abs(video.start_s - audio.start_s)
        # ffmpeg begins every MPEG transport stream at 1.4 s, whatever it was extracted from.
        alike = (video.container == _TRANSPORT) == (audio.container == _TRANSPORT)
        if video.has_timestamps and audio.has_timestamps and alike and apart < _ONE_TIMELINE_S:
            video_zero = audio_zero = min(video.start_s, audio.start_s)
        else:
            audio_zero = audio.start_s
    seen = _span(video, video.video, video_zero)
    heard = seen if flat else _span(audio, audio.audio, audio_zero)
    end_s = min(seen[1], heard[1])
    nominal_end_s = video.duration_s + _if_clear(video.start_s - video_zero)
    return Timeline(
        video_zero,
        audio_zero,
        begin_s=max(seen[0], heard[0]),
        end_s=end_s,
        planned_end_s=nominal_end_s if end_s > nominal_end_s - TRACK_TOLERANCE_S else end_s,
        cuts=_describe_cuts(seen, heard),
    )


def _span(
    media: Media, track: VideoTrack | AudioTrack | None, zero_s: float
) -> tuple[float, float]:
    """When a track begins and ends, in seconds after the origin."""
    shift_s = media.start_s - zero_s
    begin_s = _if_clear(shift_s)
    end_s = shift_s + media.duration_s if media.duration_s else math.inf
    if track is not None:
        begin_s = max(begin_s, _if_clear(track.begin_s - zero_s))
        if track.end_s is not None and track.end_s - zero_s < end_s - TRACK_TOLERANCE_S:
            end_s = track.end_s - zero_s
    return begin_s, end_s


def _if_clear(begin_s: float) -> float:
    """A time, or 0 if it is within the tolerance."""
    return begin_s if begin_s > TRACK_TOLERANCE_S else 0.0


def _describe_cuts(seen: tuple[float, float], heard: tuple[float, float]) -> tuple[str, ...]:
    cuts = []
    late_s, early_s = seen[0] - heard[0], seen[1] - heard[1]
    if abs(late_s) > TRACK_TOLERANCE_S:
        late, other = ("picture", "sound") if late_s > 0 else ("sound", "picture")
        cuts.append(
            f"its {late} begins {abs(late_s):.1f} s after its {other}; clips begin where both are"
        )
    if math.isfinite(early_s) and abs(early_s) > TRACK_TOLERANCE_S:
        early, other = ("sound", "picture") if early_s > 0 else ("picture", "sound")
        cuts.append(
            f"its {early} ends {abs(early_s):.1f} s before its {other}; clips end where both are"
        )
    return tuple(cuts)
