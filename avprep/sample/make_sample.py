"""One clip of a recording becomes one sample: decode once, crop all views, rotate, encode."""

from __future__ import annotations

from dataclasses import asdict
from fractions import Fraction
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from avprep.errors import ClipError
from avprep.formats.decide import VideoFormat
from avprep.media.decode_audio import DecodedAudio, decode_audio
from avprep.media.decode_video import VideoDecoder, VideoRequest
from avprep.media.encode import GOP_FRAMES, CropEncoder
from avprep.media.ffmpeg import AudioRequest
from avprep.media.probe import Media, VideoTrack, probe_both
from avprep.media.timeline import shared_timeline
from avprep.media.tone_map import ToneMap
from avprep.recordings.clips import MIN_CLIP_S, Clip
from avprep.recordings.events import read_events
from avprep.sample.label_maps import label_maps
from avprep.sample.options import ClipOptions
from avprep.sample.sound import encode_sound, field_of, no_sound
from avprep.sample.thresholds import MotionMeter, check_worth
from avprep.sphere.crop import FRAMES_AT_ONCE, Cropper
from avprep.sphere.projections import Sphere
from avprep.sphere.viewpoints import RandomViews
from shards.schema import SampleInfo, VideoInfo, View
from shards.video import index_mp4

MISSING_TOLERANCE_S = 0.5
"""A clip that ends this much earlier than its file promises is a fault of the file."""
_LARGEST_SLIP_S = 0.02
_BT709 = (1, 1, 1)
_RGB, _BT601 = 0, 6
"""Of H.273's matrices: that of pictures that are no YCbCr, and what they are made into."""


def make_sample(clip: Clip, options: ClipOptions) -> tuple[SampleInfo, dict[str, bytes]]:
    """The sample's record and members; raises ClipError where the clip cannot be made, and
    DroppedError where it is not worth it."""
    cv2.setNumThreads(1)  # clips run side by side, one on each core
    video_media, audio_media = clip.media or probe_both(clip.video, clip.audio)
    decoding, listening = _decodings(clip, options, video_media, audio_media)
    heard = (
        decode_audio(listening)
        if listening is not None
        else DecodedAudio(np.empty((0, 0), np.float32))
    )
    views = options.views.draw(clip.key, options.seed, _energy(clip, options, listening, heard))
    stills = MotionMeter(options.fps)
    picture = VideoDecoder(decoding)
    crops, frames = _crop_all(
        picture, decoding, video_media, clip.video_format.sphere, views, options, stills
    )
    raw = heard.channels
    frames_s = frames / options.fps
    delivered = [(clip.video, frames_s, picture.message)]
    if listening is not None and not clip.flat:
        delivered.append((clip.audio, raw.shape[1] / listening.sample_rate, heard.message))
    for file, seconds, complaint in delivered:
        if not frames or seconds < decoding.duration_s - MISSING_TOLERANCE_S:
            said = f" ({complaint})" if complaint else ""
            raise ClipError(
                f"{file.name} delivers {seconds:.1f} s of {decoding.duration_s:.1f} s from second "
                f"{clip.offset_s:g}{said}; it is truncated or damaged: download it again"
            )
    if picture.lost_s > MISSING_TOLERANCE_S:
        raise ClipError(
            f"{clip.video.name} lacks {picture.lost_s:.1f} s of picture after second "
            f"{clip.offset_s:g} ({picture.message}); it is damaged: download it again"
        )
    # The picture's frames set the clip's length, and the sound is cut or padded to it.
    samples = round(frames_s * options.sample_rate)
    sound = no_sound(options)
    if listening is not None and raw.size:
        field = field_of(raw, clip, listening.sample_rate, samples, options.sample_rate)
        if options.cleaning:
            check_worth(options.cleaning, field, stills)
        sound = encode_sound(field, views, options)
    events, step_s = None, None
    if clip.truth is not None:
        events, step_s = read_events(clip.truth, clip.offset_s, frames_s)
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
            **asdict(clip.video_format.sphere),
            "stereo": clip.video_format.stereo,
            "rotation_deg": clip.video_format.rotation_deg,
            "foa_convention": clip.audio_format.convention,
        },
        label=clip.label,
        events=events,
        event_step_s=step_s,
        folds=clip.folds,
        map_times_s=times_s,
    )
    return info, members


def _energy(
    clip: Clip, options: ClipOptions, listening: AudioRequest | None, heard: DecodedAudio
) -> NDArray[np.float64] | None:
    """Where the clip's sound comes from, if its views are drawn by that."""
    views = options.views
    if not isinstance(views, RandomViews) or not views.by_energy or listening is None:
        return None
    from avprep.foa.energy_map import energy_map  # SciPy, which others do without

    samples = round(listening.duration_s * options.sample_rate)
    field = field_of(heard.channels, clip, listening.sample_rate, samples, options.sample_rate)
    return energy_map(field, options.sample_rate)


def _decodings(
    clip: Clip, options: ClipOptions, video: Media, audio: Media
) -> tuple[VideoRequest, AudioRequest | None]:
    """What is to be decoded of a clip's picture and sound; None where it may have no sound."""
    if video.video is None:
        raise ClipError(f"{clip.video.name} has no video track; it is no 360° video")
    if audio.audio is None and not clip.flat:
        raise ClipError(
            f"{clip.audio.name} has no sound; put its ambisonic sound beside it as a file of the "
            "same name (wav, flac, m4a, ogg or opus)"
        )
    video_zero_s, audio_zero_s, both_s = shared_timeline(video, audio, clip.audio == clip.video)
    # Sound only accompanies an ordinary video; where it ends early, the rest is silent.
    left = (both_s if not clip.flat else video.duration_s or np.inf) - clip.offset_s
    duration = min(clip.duration_s, left) if left > 0 else clip.duration_s
    if duration < MIN_CLIP_S and not clip.flat:
        raise ClipError(
            f"{clip.video.name} has only {duration:.2f} s of picture with sound; clips must have "
            f"at least {MIN_CLIP_S:g} s"
        )
    stored, crop = _taken(video.video, clip.video_format)
    decoding = VideoRequest(
        video=clip.video,
        start_s=video_zero_s + clip.offset_s,
        duration_s=duration,
        fps=options.fps,
        frame_size=stored,
        crop=crop,
        rotation_deg=clip.video_format.rotation_deg,
        full_range=video.video.full_range,
        ten_bit=video.video.hdr is not None,
        max_pixels=video.video.max_pixels,
        timeout_s=options.timeout_s,
    )
    if audio.audio is None:
        return decoding, None
    return decoding, AudioRequest(
        audio=clip.audio,
        file_start_s=audio.start_s,
        start_s=audio_zero_s + clip.offset_s,
        duration_s=duration,
        max_slip_s=min(_LARGEST_SLIP_S, 0.5 / options.fps),
        channels=audio.audio.channels,
        sample_rate=audio.audio.sample_rate,
        plain_layout=audio.audio.plain_layout,
        timeout_s=options.timeout_s,
    )


def _taken(
    picture: VideoTrack, of: VideoFormat
) -> tuple[tuple[int, int], tuple[int, int, int, int] | None]:
    """The size (height, width) that a file's frames are brought to, and the part of them, turned
    upright, that is taken (None: all).

    Planes of 4:2:0 have even sizes; a frame still spans the same part of the sphere.
    """
    height, width = picture.height, picture.width
    turned = of.rotation_deg // 90 % 2 == 1
    if turned:
        height, width = width, height
    eyes_down = 2 if of.stereo == "top-bottom" else 1
    eyes_across = 2 if of.stereo == "left-right" else 1
    down, across = _even(height / eyes_down), _even(width / eyes_across)
    height, width = down * eyes_down, across * eyes_across
    crop = (0, 0, across, down) if of.stereo != "mono" else None
    return ((width, height) if turned else (height, width)), crop


def _even(size: float) -> int:
    return max(2, 2 * round(size / 2))


def _crop_all(
    decoder: VideoDecoder,
    decoding: VideoRequest,
    video: Media,
    sphere: Sphere,
    views: tuple[View, ...],
    options: ClipOptions,
    stills: MotionMeter,
) -> tuple[list[bytes], int]:
    """The views' mp4 files and their number of frames; ``stills`` sees the frames as well, where
    clips are cleaned by them."""
    cropper: Cropper | None = None
    fps = Fraction(options.fps).limit_denominator(1001)
    hdr = video.video.hdr if video.video else None
    tone_map = ToneMap(hdr) if hdr is not None else None
    colorspace = video.video.colorspace if video.video else 2
    colours = (_BT601 if colorspace == _RGB else colorspace, 2, 2)
    if tone_map is not None:
        colours = _BT709
    encoder = CropEncoder(len(views), options.size, fps, *colours)
    frames = 0
    shown = decoder.frames(max(1, round(decoding.duration_s * options.fps)))
    while some := list(islice(shown, FRAMES_AT_ONCE)):
        if cropper is None:
            height, width = some[0][0][0].shape
            cropper = Cropper(height, width, views, options.size, sphere)
        crops = cropper.crop_frames([planes for planes, _ in some])
        for (planes, count), crop in zip(some, crops, strict=True):
            finished = tone_map(crop) if tone_map else crop.astype(np.uint8, copy=False)
            for _ in range(count):
                if options.cleaning:
                    stills.see(planes[0])
                encoder.add(finished)
            frames += count
    return encoder.finish() if frames else [], frames


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
