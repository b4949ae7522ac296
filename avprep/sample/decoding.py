"""What to decode for a clip: which part of which file, and to which size."""

from __future__ import annotations

from avprep.errors import ClipError
from avprep.formats.choose_tracks import choose_tracks, no_track
from avprep.formats.decide import FormatOverrides, VideoFormat
from avprep.media.decode_video import VideoRequest
from avprep.media.ffmpeg import AudioRequest
from avprep.media.probe import Media, probe_both
from avprep.media.timeline import shared_timeline
from avprep.media.tracks import TRACK_TOLERANCE_S, VideoTrack
from avprep.recordings.clips import MIN_CLIP_S, Clip
from avprep.sample.options import ClipOptions
from avprep.sphere.eyes import EYE_LAYOUTS

_MAX_SLIP_S = 0.02


def probe_tracks(clip: Clip) -> tuple[Media, Media]:
    """What the files of a clip hold whose formats its layout states, with the tracks to read."""
    paths = (clip.video, clip.audio)
    return choose_tracks(paths, probe_both(*paths), FormatOverrides(), clip.flat)[0]


def named_track(media: Media) -> dict[str, int]:
    """The number of a file's video track, for the sample's record, if it is not the first."""
    if (
        media.video is None
        or not media.tracks.videos
        or media.video.index == media.tracks.videos[0].index
    ):
        return {}
    return {"video_track": media.video.index}


def video_track(clip: Clip, media: Media) -> VideoTrack:
    """The track of the clip's video file. Raises ClipError if there is none."""
    if media.video is None:
        raise no_track(clip.video.name, "video", media, "it is no 360° video")
    return media.video


def decoding_requests(
    clip: Clip, options: ClipOptions, video: Media, audio: Media
) -> tuple[VideoRequest, AudioRequest | None]:
    """What to decode of a clip's files, which hold ``video`` and ``audio``.

    The audio request is None for an ordinary video without audio. Raises ClipError if a track is
    missing, or if video and audio last less than `MIN_CLIP_S` together.
    """
    track = video_track(clip, video)
    if audio.audio is None and not clip.flat:
        remedy = (
            "put its ambisonics beside it as a file of the same name (wav, flac, m4a, ogg or opus)"
        )
        raise no_track(clip.audio.name, "audio", audio, remedy)
    timeline = shared_timeline(video, audio, clip.audio == clip.video, clip.flat)
    late_s = timeline.begin_s - clip.offset_s
    if late_s > TRACK_TOLERANCE_S:
        raise ClipError(
            f"{clip.video.name} has no picture and sound together in the first {late_s:.1f} s of "
            f"the clip ({'; '.join(timeline.cuts)}); cut it again without stream copy (-c copy)"
        )
    left_s = timeline.end_s - clip.offset_s
    duration_s = min(clip.duration_s, left_s) if left_s > 0 else clip.duration_s
    if duration_s < MIN_CLIP_S and not clip.flat:
        raise ClipError(
            f"{clip.video.name} has only {duration_s:.2f} s of video with audio; clips must have "
            f"at least {MIN_CLIP_S:g} s"
        )
    frame_size, crop = _frame_size_and_crop(track, clip.video_format)
    video_request = VideoRequest(
        video=clip.video,
        track=track.index,
        start_s=timeline.video_zero_s + clip.offset_s,
        duration_s=duration_s,
        fps=options.fps,
        frame_size=frame_size,
        crop=crop,
        rotation_deg=clip.video_format.rotation_deg,
        full_range=track.full_range,
        ten_bit=track.hdr is not None,
        max_pixels=track.max_pixels,
        timeout_s=options.timeout_s,
    )
    if audio.audio is None:
        return video_request, None
    return video_request, AudioRequest(
        audio=clip.audio,
        track=audio.audio.index,
        file_start_s=audio.start_s,
        start_s=timeline.audio_zero_s + clip.offset_s,
        duration_s=duration_s,
        max_slip_s=min(_MAX_SLIP_S, 0.5 / options.fps),
        channels=audio.audio.channels,
        sample_rate=audio.audio.sample_rate,
        plain_layout=audio.audio.plain_layout,
        timeout_s=options.timeout_s,
        is_pcm=audio.audio.codec.startswith("pcm_"),
    )


def _frame_size_and_crop(
    track: VideoTrack, video_format: VideoFormat
) -> tuple[tuple[int, int], tuple[int, int, int, int] | None]:
    """The size (height, width) to which stored frames are scaled, and the part of the upright
    frame that is used: that of the left eye, or None for all of it.

    Both are even, as planes of 4:2:0 must be; a frame spans the same part of the sphere as before.
    """
    height, width = track.height, track.width
    is_turned = video_format.rotation_deg // 90 % 2 == 1
    if is_turned:
        height, width = width, height
    eyes = EYE_LAYOUTS[video_format.stereo]
    eye_height, eye_width = _even(height / eyes.rows), _even(width / eyes.columns)
    height, width = eye_height * eyes.rows, eye_width * eyes.columns
    crop = None
    if video_format.stereo != "mono":
        crop = (eyes.column * eye_width, eyes.row * eye_height, eye_width, eye_height)
    return ((width, height) if is_turned else (height, width)), crop


def _even(size: float) -> int:
    return max(2, 2 * round(size / 2))
