"""One clip becomes one sample: decode once, crop all views, rotate the audio, encode."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from avprep.errors import ClipError
from avprep.media.decode_audio import DecodedAudio, decode_audio
from avprep.media.decode_video import VideoDecoder
from avprep.media.ffmpeg import AudioRequest
from avprep.recordings.clips import Clip
from avprep.recordings.events import read_events, read_reverberation
from avprep.sample.audio import encode_audio, no_audio, to_field
from avprep.sample.crop_views import crop_views
from avprep.sample.decoding import decoding_requests, named_track, probe_tracks, video_track
from avprep.sample.label_maps import crop_label_maps
from avprep.sample.options import ClipOptions
from avprep.sample.thresholds import MotionMeter, check_thresholds
from avprep.sphere.viewpoints import RandomViews
from shards.schema import PANORAMA, SampleInfo

MISSING_TOLERANCE_S = 0.5
"""If more than this is missing of what the file promises, the file is damaged."""


def make_sample(clip: Clip, options: ClipOptions) -> tuple[SampleInfo, dict[str, bytes]]:
    """The sample's record, and its members by suffix.

    Raises ClipError if the clip cannot be decoded, and DroppedError if it is below a threshold.
    """
    cv2.setNumThreads(1)  # one clip is made on each core
    video_media, audio_media = clip.media or probe_tracks(clip)
    video_request, audio_request = decoding_requests(clip, options, video_media, audio_media)
    decoded = DecodedAudio(np.empty((0, 0), np.float32))
    if audio_request is not None:
        decoded = decode_audio(audio_request)
    energy = _energy_map(clip, options, audio_request, decoded)
    views = options.views.draw(clip.key, options.seed, energy)

    # Video: its frames set the clip's length.
    motion = MotionMeter(options.fps) if options.cleaning else None
    decoder = VideoDecoder(video_request)
    track = video_track(clip, video_media)
    sphere = clip.video_format.sphere
    video = crop_views(decoder, video_request, track, sphere, views, options, motion)
    duration_s = video.frames / options.fps
    promised_s = video_request.duration_s
    _check_duration(clip.video, clip.offset_s, duration_s, promised_s, decoder.message)
    if audio_request is not None and not clip.flat:
        audio_s = decoded.channels.shape[1] / audio_request.sample_rate
        _check_duration(clip.audio, clip.offset_s, audio_s, promised_s, decoded.message)
    if decoder.late_s > MISSING_TOLERANCE_S:
        raise ClipError(
            f"{clip.video.name} has no frame that can be decoded in the {decoder.late_s:.1f} s "
            f"from second {clip.offset_s:g} on; it is damaged there, or was cut without encoding "
            "it again: cut it with encoding"
        )
    if decoder.lost_s > MISSING_TOLERANCE_S:
        raise ClipError(
            f"{clip.video.name} lacks {decoder.lost_s:.1f} s of video after second "
            f"{clip.offset_s:g} ({decoder.message}); it is damaged: download it again"
        )

    # Audio, cut or padded to the video's length.
    samples = round(duration_s * options.sample_rate)
    audio = no_audio(options)
    if audio_request is not None and decoded.channels.size:
        field = to_field(
            decoded.channels, clip, audio_request.sample_rate, samples, options.sample_rate
        )
        if motion is not None:
            check_thresholds(options.cleaning, field, motion)
        audio = encode_audio(field, views, options)

    # Labels.
    events, event_step_s, rt60_s = None, None, None
    if clip.truth is not None:
        rt60_s = read_reverberation(clip.truth)
        events, event_step_s = read_events(clip.truth, clip.offset_s, duration_s)
    map_times_s, maps = None, dict[str, bytes]()
    if clip.maps is not None:
        map_times_s, maps = crop_label_maps(
            clip.maps, clip.maps_offset_s, duration_s, views, options.size
        )

    members = {f"view{number:02d}.mp4": file for number, file in enumerate(video.files)}
    if video.panorama is not None:
        members[PANORAMA] = video.panorama
    info = SampleInfo(
        key=clip.key,
        source=clip.source,
        start_s=clip.start_s,
        duration_s=round(duration_s, 6),
        split=clip.split,
        video=video.info(options),
        audio=audio.info,
        views=views,
        file=clip.file,
        file_start_s=clip.offset_s,
        source_format={
            **asdict(clip.video_format.sphere),
            "stereo": clip.video_format.stereo,
            "rotation_deg": clip.video_format.rotation_deg,
            "foa_convention": clip.audio_format.convention,
            **named_track(video_media),
        },
        label=clip.label,
        events=events,
        event_step_s=event_step_s,
        folds=clip.folds,
        map_times_s=map_times_s,
        reverberation_rt60_s=rt60_s,
        panorama=video.panorama_info(options),
    )
    return info, members | audio.members | maps


def _energy_map(
    clip: Clip, options: ClipOptions, request: AudioRequest | None, decoded: DecodedAudio
) -> NDArray[np.float64] | None:
    """The direct sound's energy over the sphere, if the views are drawn from it."""
    views = options.views
    if not isinstance(views, RandomViews) or not views.by_energy or request is None:
        return None
    from avprep.foa.energy_map import energy_map  # imports SciPy, which other builds do without

    samples = round(request.duration_s * options.sample_rate)
    field = to_field(decoded.channels, clip, request.sample_rate, samples, options.sample_rate)
    return energy_map(field, options.sample_rate)


def _check_duration(
    file: Path, offset_s: float, duration_s: float, promised_s: float, message: str
) -> None:
    """Raises ClipError if a decoder delivered less than requested; ``message`` is its own."""
    if duration_s <= 0 or duration_s < promised_s - MISSING_TOLERANCE_S:
        details = f" ({message})" if message else ""
        raise ClipError(
            f"{file.name} delivers {duration_s:.1f} s of {promised_s:.1f} s from second "
            f"{offset_s:g}{details}; it is truncated or damaged: download it again"
        )
