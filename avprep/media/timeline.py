"""A common time origin for a recording's video and audio."""

from __future__ import annotations

import math

from avprep.media.probe import Media

_ONE_TIMELINE_S = 5.0


def shared_timeline(video: Media, audio: Media, same_file: bool) -> tuple[float, float, float]:
    """The common origin as a time stamp in the video file and in the audio file, and the seconds
    for which both files last from there (infinite if neither states a duration).

    Players count from the start of a file's first track. Two files are aligned by their time stamps
    if they start at about the same time, as files extracted from one file do. Otherwise, and if a
    container has no time stamps, each file counts from its own start.
    """
    video_zero = audio_zero = video.start_s
    if not same_file:
        apart = abs(video.start_s - audio.start_s)
        if video.has_timestamps and audio.has_timestamps and apart < _ONE_TIMELINE_S:
            video_zero = audio_zero = min(video.start_s, audio.start_s)
        else:
            audio_zero = audio.start_s
    ends = [
        media.start_s - zero + media.duration_s
        for media, zero in ((video, video_zero), (audio, audio_zero))
        if media.duration_s
    ]
    return video_zero, audio_zero, min(ends, default=math.inf)
