"""One clip of a recording becomes one sample: decode once, crop all views, rotate, encode."""

from __future__ import annotations

from dataclasses import asdict
from fractions import Fraction

import cv2
import numpy as np
import soxr
from numpy.typing import NDArray

from avprep.ambisonics import to_ambix
from avprep.clips import SHORTEST_CLIP_S, Clip, ClipOptions
from avprep.encode import GOP_FRAMES, CropEncoder, flac, rotation_safe_gain
from avprep.errors import ClipError
from avprep.examine import PictureFormat
from avprep.ffmpeg import Decoder, Decoding
from avprep.probe import Media, Picture, probe_both
from avprep.projection import Cropper
from avprep.sphere import Sphere
from avprep.truth import starss_events
from shards.geometry import rotate_foa, view_foa_matrix
from shards.schema import AudioInfo, SampleInfo, VideoInfo, View
from shards.video import index_mp4

MISSING_TOLERANCE_S = 0.5
"""A clip that ends this much earlier than its file promises is a fault of the file."""
_BYTES_AT_ONCE = 1 << 21
"""Crops that wait to be encoded: an encoder that gets some frames in a row finds its memory in
the processor's cache."""


def make_sample(clip: Clip, options: ClipOptions) -> tuple[SampleInfo, dict[str, bytes]]:
    """The sample's record and members; raises ClipError where the clip cannot be made."""
    cv2.setNumThreads(1)  # clips run side by side, one on each core
    video_file, audio_file = clip.media or probe_both(clip.video, clip.audio)
    decoding = _decoding(clip, options, video_file, audio_file)
    views = options.views.draw(clip.key, options.seed)
    expected = max(1, round(decoding.duration_s * options.fps))
    with Decoder(decoding) as decoder:
        crops, frames = _crop_all(
            decoder, decoding, video_file, clip.picture.sphere, views, options, expected
        )
        raw = decoder.sound()
        complaint = f" ({decoder.messages})" if decoder.messages else ""
    frames_s, sound_s = frames / options.fps, raw.shape[1] / decoding.sample_rate
    for file, seconds in ((clip.video, frames_s), (clip.audio, sound_s)):
        if seconds < decoding.duration_s - MISSING_TOLERANCE_S:
            raise ClipError(
                f"{file.name} delivers {seconds:.1f} s of {decoding.duration_s:.1f} s from second "
                f"{clip.offset_s:g}{complaint}; it is truncated or damaged: download it again"
            )
    # The picture's frames set the clip's length, and the sound is cut or padded to it.
    samples = round(frames_s * options.sample_rate)
    foa = to_ambix(raw, clip.sound.convention, clip.sound.channels)
    foa = _resample(foa, decoding.sample_rate, options, samples)
    events = None
    if clip.truth is not None:
        events = starss_events(clip.truth, clip.offset_s, frames_s)
    members = {f"view{number:02d}.mp4": crop for number, crop in enumerate(crops)}
    gain = rotation_safe_gain(foa)
    if options.audio_layout == "rotated":
        for number, view in enumerate(views):
            rotated = rotate_foa(foa, view_foa_matrix(view.azimuth_deg, view.elevation_deg))
            members[f"view{number:02d}.flac"] = flac(rotated, gain, options.sample_rate)
    else:
        members["flac"] = flac(foa, gain, options.sample_rate)
    info = SampleInfo(
        key=clip.key,
        source=clip.source,
        start_s=clip.start_s,
        duration_s=round(frames_s, 6),
        split=clip.split,
        video=_video_info(crops, options, frames),
        audio=AudioInfo(options.sample_rate, samples, gain, options.audio_layout),
        views=views,
        file=clip.file,
        file_start_s=clip.offset_s,
        source_format={
            **asdict(clip.picture.sphere),
            "stereo": clip.picture.stereo,
            "rotation_deg": clip.picture.rotation_deg,
            "foa_convention": clip.sound.convention,
        },
        label=clip.label,
        events=events,
    )
    return info, members


def _decoding(clip: Clip, options: ClipOptions, video: Media, audio: Media) -> Decoding:
    if video.picture is None:
        raise ClipError(f"{clip.video.name} has no picture; it is no 360° video")
    if audio.sound is None:
        raise ClipError(
            f"{clip.audio.name} has no sound; put its ambisonic sound beside it as a file of the "
            "same name (wav, flac, m4a, ogg or opus)"
        )
    left = min(video.duration_s or np.inf, audio.duration_s or np.inf) - clip.offset_s
    duration = min(clip.duration_s, left) if left > 0 else clip.duration_s
    if duration < SHORTEST_CLIP_S:
        raise ClipError(
            f"{clip.video.name} has only {duration:.2f} s of picture with sound; clips must have "
            f"at least {SHORTEST_CLIP_S:g} s"
        )
    crop, height, width = _taken(video.picture, clip.picture)
    # Planes of 4:2:0 have even sizes; the frame still spans the same part of the sphere.
    even = (height + height % 2, width + width % 2)
    return Decoding(
        video=clip.video,
        audio=clip.audio,
        start_s=clip.offset_s,
        duration_s=duration,
        fps=options.fps,
        height=even[0],
        width=even[1],
        crop=crop,
        rescale=video.picture.full_range or even != (height, width),
        rotate=clip.picture.rotation_deg != 0,
        most_pixels=video.picture.most_pixels,
        channels=audio.sound.channels,
        sample_rate=audio.sound.sample_rate,
        timeout_s=options.timeout_s,
    )


def _taken(
    picture: Picture, of: PictureFormat
) -> tuple[tuple[int, int, int, int] | None, int, int]:
    """The part of a file's frames that is taken (None: all), and its height and width."""
    height, width = picture.height, picture.width
    if of.rotation_deg % 180:
        height, width = width, height
    if of.stereo == "top-bottom":
        return (0, 0, width, height // 2), height // 2, width
    if of.stereo == "left-right":
        return (0, 0, width // 2, height), height, width // 2
    return None, height, width


def _crop_all(
    decoder: Decoder,
    decoding: Decoding,
    video: Media,
    sphere: Sphere,
    views: tuple[View, ...],
    options: ClipOptions,
    expected: int,
) -> tuple[list[bytes], int]:
    """The views' mp4 files and their number of frames."""
    cropper = Cropper(decoding.height, decoding.width, views, options.size, sphere)
    colorspace = video.picture.colorspace if video.picture else 2
    fps = Fraction(options.fps).limit_denominator(1001)
    encoders = [CropEncoder(options.size, fps, colorspace) for _ in views]
    frames = 0
    waiting: list[NDArray[np.uint8]] = []
    for frame in decoder.frames():
        if frames == expected:  # the filter rounds up; the pipe must still be emptied
            continue
        waiting.append(cropper.crop(frame))
        frames += 1
        if len(waiting) * waiting[0].nbytes >= _BYTES_AT_ONCE:
            _encode(encoders, waiting)
            waiting = []
    _encode(encoders, waiting)
    return [encoder.finish() for encoder in encoders] if frames else [], frames


def _encode(encoders: list[CropEncoder], frames: list[NDArray[np.uint8]]) -> None:
    for view, encoder in enumerate(encoders):
        for crops in frames:
            encoder.add(crops[view])


def _resample(
    foa: NDArray[np.float32], sample_rate: int, options: ClipOptions, samples: int
) -> NDArray[np.float32]:
    """FOA (4, samples) at the build's rate, cut or padded with silence to ``samples``."""
    if sample_rate != options.sample_rate:
        foa = soxr.resample(foa.T, sample_rate, options.sample_rate, quality="HQ").T
    missing = max(0, samples - foa.shape[1])
    return np.ascontiguousarray(np.pad(foa[:, :samples], ((0, 0), (0, missing))))


def _video_info(crops: list[bytes], options: ClipOptions, frames: int) -> VideoInfo:
    indices = [index_mp4(crop) for crop in crops]
    if any(index[0] != indices[0][0] or index[2] != frames for index in indices):
        raise RuntimeError("the crops of one clip were encoded differently")
    return VideoInfo(
        fps=options.fps,
        frames=frames,
        height=options.size,
        width=options.size,
        gop_frames=GOP_FRAMES,
        avcc=indices[0][0],
        gops=tuple(index[1] for index in indices),
    )
