"""One zero for the times of a recording's picture and sound."""

from __future__ import annotations

import math

from avprep.media.probe import Media

_ONE_TIMELINE_S = 5.0


def shared_timeline(video: Media, audio: Media, same_file: bool) -> tuple[float, float, float]:
    """The time stamps, in the video's and in the audio file, of the moment that counts as 0, and
    how many seconds from there both files last (infinite where neither says).

    A player counts from where the first track of a file begins. Two files keep what their time
    stamps say of one another where they begin at about the same time, as those that were taken
    from one file do. Otherwise, and where the sound's container has no time stamps, each counts
    from its own beginning.
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
