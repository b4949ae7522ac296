"""One clip of a recording becomes one sample: decode once, crop all views, rotate, encode."""

from __future__ import annotations

from dataclasses import asdict
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from avprep.cleaning import Stills, check_worth
from avprep.clips import SHORTEST_CLIP_S, Clip, ClipOptions
from avprep.encode import GOP_FRAMES, CropEncoder
from avprep.errors import ClipError
from avprep.examine import PictureFormat
from avprep.excerpt import read_sound
from avprep.ffmpeg import Decoder, Decoding
from avprep.hdr import ToneMap
from avprep.maps import label_maps
from avprep.probe import Media, Picture, probe_both
from avprep.projection import Cropper
from avprep.sound import encode_sound, field_of, no_sound
from avprep.sphere import Sphere
from avprep.timeline import shared_time
from avprep.truth import starss_events
from avprep.viewpoints import RandomViews
from shards.schema import SampleInfo, VideoInfo, View
from shards.video import index_mp4

MISSING_TOLERANCE_S = 0.5
"""A clip that ends this much earlier than its file promises is a fault of the file."""
_BT709 = (1, 1, 1)
_BYTES_AT_ONCE = 1 << 21
"""Crops that wait to be encoded: an encoder that gets some frames in a row finds its memory in
the processor's cache."""


def make_sample(clip: Clip, options: ClipOptions) -> tuple[SampleInfo, dict[str, bytes]]:
    """The sample's record and members; raises ClipError where the clip cannot be made, and
    DroppedError where it is not worth it."""
    cv2.setNumThreads(1)  # clips run side by side, one on each core
    video_file, audio_file = clip.media or probe_both(clip.video, clip.audio)
    decoding = _decoding(clip, options, video_file, audio_file)
    views = options.views.draw(clip.key, options.seed, _energy(clip, options, decoding))
    expected = max(1, round(decoding.duration_s * options.fps))
    stills = Stills(options.fps)
    with Decoder(decoding) as decoder:
        crops, frames = _crop_all(
            decoder, decoding, video_file, clip.picture.sphere, views, options, expected, stills
        )
        raw = decoder.sound()
        complaint = f" ({decoder.messages})" if decoder.messages else ""
    frames_s = frames / options.fps
    delivered = [(clip.video, frames_s)]
    if not clip.flat:
        delivered.append((clip.audio, raw.shape[1] / decoding.sample_rate))
    for file, seconds in delivered:
        if not frames or seconds < decoding.duration_s - MISSING_TOLERANCE_S:
            raise ClipError(
                f"{file.name} delivers {seconds:.1f} s of {decoding.duration_s:.1f} s from second "
                f"{clip.offset_s:g}{complaint}; it is truncated or damaged: download it again"
            )
    # The picture's frames set the clip's length, and the sound is cut or padded to it.
    samples = round(frames_s * options.sample_rate)
    sound = no_sound(options)
    if raw.size:
        field = field_of(raw, clip, decoding.sample_rate, samples, options.sample_rate)
        if options.cleaning:
            check_worth(options.cleaning, field, stills)
        sound = encode_sound(field, views, options)
    events = None
    if clip.truth is not None:
        events = starss_events(clip.truth, clip.offset_s, frames_s)
    members = {f"view{number:02d}.mp4": crop for number, crop in enumerate(crops)}
    members |= sound.members
    times_s = None
    if clip.maps is not None:
        times_s, maps = label_maps(clip.maps, clip.maps_offset_s, frames_s, views, options.size)
        members |= maps
    info = SampleInfo(
        key=clip.key,
        source=clip.source,
        start_s=clip.start_s,
        duration_s=round(frames_s, 6),
        split=clip.split,
        video=_video_info(crops, options, frames),
        audio=sound.info,
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
        folds=clip.folds,
        map_times_s=times_s,
    )
    return info, members


def _energy(clip: Clip, options: ClipOptions, decoding: Decoding) -> NDArray[np.float64] | None:
    """Where the clip's sound comes from, if its views are drawn by that."""
    if not isinstance(options.views, RandomViews) or not options.views.by_energy or clip.flat:
        return None
    from avprep.soundfield import energy_map  # SciPy, which others do without

    rate, duration_s = decoding.sample_rate, decoding.duration_s
    raw = read_sound(clip.audio, decoding.channels, clip.offset_s, duration_s)
    samples = round(duration_s * options.sample_rate)
    field = field_of(raw, clip, rate, samples, options.sample_rate)
    return energy_map(field, options.sample_rate)


def _decoding(clip: Clip, options: ClipOptions, video: Media, audio: Media) -> Decoding:
    if video.picture is None:
        raise ClipError(f"{clip.video.name} has no picture; it is no 360° video")
    if audio.sound is None and not clip.flat:
        raise ClipError(
            f"{clip.audio.name} has no sound; put its ambisonic sound beside it as a file of the "
            "same name (wav, flac, m4a, ogg or opus)"
        )
    video_zero_s, audio_zero_s, both_s = shared_time(video, audio, clip.audio == clip.video)
    # Sound only accompanies an ordinary video; where it ends early, the rest is silent.
    left = (both_s if not clip.flat else video.duration_s or np.inf) - clip.offset_s
    duration = min(clip.duration_s, left) if left > 0 else clip.duration_s
    if duration < SHORTEST_CLIP_S and not clip.flat:
        raise ClipError(
            f"{clip.video.name} has only {duration:.2f} s of picture with sound; clips must have "
            f"at least {SHORTEST_CLIP_S:g} s"
        )
    crop, height, width = _taken(video.picture, clip.picture)
    # Planes of 4:2:0 have even sizes; the frame still spans the same part of the sphere.
    even = (height + height % 2, width + width % 2)
    return Decoding(
        video=clip.video,
        audio=clip.audio if audio.sound is not None else None,
        video_start_s=video_zero_s + clip.offset_s,
        audio_start_s=audio_zero_s + clip.offset_s,
        duration_s=duration,
        fps=options.fps,
        height=even[0],
        width=even[1],
        deep=video.picture.hdr is not None,
        crop=crop,
        rescale=video.picture.full_range or even != (height, width),
        rotate=clip.picture.rotation_deg != 0,
        most_pixels=video.picture.most_pixels,
        channels=audio.sound.channels if audio.sound is not None else 0,
        sample_rate=audio.sound.sample_rate if audio.sound is not None else options.sample_rate,
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
    stills: Stills,
) -> tuple[list[bytes], int]:
    """The views' mp4 files and their number of frames; ``stills`` sees the frames as well, where
    clips are cleaned by them."""
    cropper = Cropper(decoding.height, decoding.width, views, options.size, sphere)
    fps = Fraction(options.fps).limit_denominator(1001)
    hdr = video.picture.hdr if video.picture else None
    tone_map = ToneMap(hdr) if hdr is not None else None
    colours = (video.picture.colorspace if video.picture else 2, 2, 2)
    if tone_map is not None:
        colours = _BT709
    encoders = [CropEncoder(options.size, fps, *colours) for _ in views]
    frames = 0
    waiting: list[NDArray[np.uint8]] = []
    for frame in decoder.frames():
        if frames == expected:  # the filter rounds up; the pipe must still be emptied
            continue
        if options.cleaning:
            stills.see(frame[: decoding.height])
        crops = cropper.crop(frame)
        waiting.append(tone_map(crops) if tone_map else crops.astype(np.uint8, copy=False))
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
