"""A dataset of clips: reads from a shard set the views, audio and frames that a draw chooses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from avtrain.config import AugmentConfig, ClipConfig
from avtrain.data.draws import Draw
from avtrain.data.published_conventions import published_view_matrix
from avtrain.data.shard_sets import Shards, sets_in
from avtrain.errors import TrainingError
from avtrain.networks.features import FeatureConfig
from shards.errors import ShardError
from shards.geometry import (
    ACN_CHANNELS,
    AUDIO_CHANNELS,
    BEAMS,
    MIRROR,
    foa_matrix,
    unit_vector,
    view_foa_matrix,
    view_rotation,
)
from shards.schema import SampleInfo, VideoInfo

FIRST_CLIPS = 10
"""A set whose first clips are all damaged, up to this number, is damaged."""


class Clips(Dataset[dict[str, NDArray[np.generic]]]):
    """Samples by (pass, clip). With ``windows`` = W the pass is the number of one of W fixed
    windows, evenly spread over the clip; otherwise windows are random. ``shuffled``: the views of a
    clip exchange their audio (`Draw.with_shuffled_audio`). ``panorama``: the whole sphere is read
    beside the views. ``first`` is the record of the set's first readable clip."""

    def __init__(
        self,
        shards: Shards,
        clip: ClipConfig,
        sound: FeatureConfig,
        augment: AugmentConfig,
        seed: int,
        windows: int | None = None,
        shuffled: bool = False,
        panorama: bool = False,
    ) -> None:
        self.shards = shards
        self.clip = clip
        self.sound = sound
        self.augment = augment
        self.seed = seed
        self.windows = windows
        self.shuffled = shuffled
        self.panorama = panorama
        firsts = [first_info(one) for one in sets_in(shards)]
        self.first = firsts[0]
        for info in firsts:
            self._check(info)
        _check_alike(firsts, shards, panorama)

    def draw(self, pass_index: int, index: int) -> Draw:
        """Raises TrainingError where the clip does not suit the settings."""
        info = self.shards.info(index)
        self._check(info)
        seed = [self.seed, pass_index, index]
        draw = Draw.from_seed(seed, len(info.views), self.clip, self.augment)
        if self.shuffled:
            draw = draw.with_shuffled_audio(seed)
        return draw if self.windows is None else draw.fixed(pass_index, self.windows)

    def __getitem__(self, place: tuple[int, ...]) -> dict[str, NDArray[np.generic]]:
        """The fields of a batch for one clip: the first readable one of ``place`` = (pass, clips…),
        with ``faulty``, the clips before it, and ``faults``, the reasons: damage, or a property
        that does not suit the run (too short, another rate, …). -1 stands for no clip.

        Raises ShardError where none is readable; for a single clip, which nothing may replace, its
        own error.
        """
        pass_index, *indices = place
        if len(indices) == 1:
            return self.read(indices[0], self.draw(pass_index, indices[0]))
        faulty: list[int] = []
        faults: list[str] = []
        for index in indices:
            if index < 0:
                continue
            try:
                fields_of_clip = self.read(index, self.draw(pass_index, index))
            except (ShardError, TrainingError) as error:
                faulty.append(index)
                faults.append(str(error))
                continue
            return fields_of_clip | {"faulty": np.array(faulty), "faults": np.array(faults, str)}
        raise ShardError(
            f"{faults[0]}; no clip of another recording is left to replace it: mend the set "
            "(`avprep verify` says what is damaged), or build it without this recording"
        )

    def read(self, index: int, draw: Draw) -> dict[str, NDArray[np.generic]]:
        """The fields of a batch for one clip as drawn."""
        starts_s, audio, matrices, misaligned = self.read_audio(index, draw)
        sphere = self._read_sphere(index, draw, starts_s, matrices) if self.panorama else {}
        return sphere | {
            "index": np.array(index),
            "frames": self._read_frames(index, draw, starts_s),
            "audio": audio,
            "matrices": matrices,
            "misaligned": misaligned,
            "directions": np.tile(self._directions(index, draw), (len(starts_s), 1)),
            "jitter": draw.jitter,
            "volume": np.array(draw.volume, np.float32),
            "mirror": np.array(draw.mirror),
        }

    def read_audio(
        self, index: int, draw: Draw
    ) -> tuple[list[float], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Starts of the moments in seconds; ``audio``, ``matrices`` and ``misaligned`` of
        ``Batch``."""
        info = self.shards.info(index)
        count = self.sound.samples
        starts = self._starts(index, draw)
        if info.audio.channels == ACN_CHANNELS:
            read = [self.shards.foa(index, start, count, int(draw.views[0])) for start in starts]
            audio = np.stack([part for part, _ in read])
            matrices, misaligned = self._rotations(index, draw, read[0][1])
        else:
            audio = np.stack([self._audio_of_all_views(index, draw, start) for start in starts])
            matrices = misaligned = _own_channels(draw, self.sound.view_channels)
        if draw.audio_order is not None:
            matrices, misaligned = matrices[draw.audio_order], misaligned[draw.audio_order]
        times = (len(starts), 1, 1, 1)
        starts_s = [start / info.audio.sample_rate for start in starts]
        return starts_s, audio, np.tile(matrices, times), np.tile(misaligned, times)

    def starts_s(self, index: int, draw: Draw) -> list[float]:
        """Times in the clip at which the moments of a draw begin."""
        rate = self.shards.info(index).audio.sample_rate
        return [start / rate for start in self._starts(index, draw)]

    def _starts(self, index: int, draw: Draw) -> list[int]:
        info = self.shards.info(index)
        rate, count = info.audio.sample_rate, self.sound.samples
        end = round(_duration_s(info) * rate)
        if draw.middle_s is None:
            return draw.starts(end, count, round(self.clip.margin_s * rate))
        middle = round(draw.middle_s * rate)
        return [max(0, min(middle - count // 2, end - count))]

    def _rotations(
        self, index: int, draw: Draw, stored: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """``matrices`` and ``misaligned`` (V, channels, 4) of ``Batch``.

        With R_v the rotation to view v and S the rotation already applied to the stored audio, the
        audio of view v is R_v S^T times the stored one. Mirroring is the same for all views: the
        mirrored world seen from mirrored viewpoints. Beams come last. By the published conventions
        R_v is no rotation, and mirroring leaves the audio unchanged.
        """
        viewpoints = [self.shards.info(index).views[view] for view in draw.views]
        published = self.sound.conventions == "published"
        matrix = published_view_matrix if published else view_foa_matrix
        views = np.stack([matrix(v.azimuth_deg, v.elevation_deg) for v in viewpoints])
        if draw.mirror and not published:
            views = MIRROR @ views
        views = BEAMS[self.sound.audio] @ views
        yaw = foa_matrix(view_rotation(draw.yaw_deg, 0.0))
        return (views @ stored.T).astype(np.float32), (views @ yaw @ stored.T).astype(np.float32)

    def _audio_of_all_views(self, index: int, draw: Draw, start: int) -> NDArray[np.float32]:
        count = self.sound.samples
        parts = [self.shards.audio(index, start, count, int(view)) for view in draw.views]
        return np.concatenate(parts)

    def _directions(self, index: int, draw: Draw) -> NDArray[np.float32]:
        viewpoints = [self.shards.info(index).views[view] for view in draw.views]
        azimuth = np.array([view.azimuth_deg for view in viewpoints]) + draw.frame_yaw_deg
        directions = unit_vector(azimuth, [view.elevation_deg for view in viewpoints])
        return (directions * [1, -1 if draw.mirror else 1, 1]).astype(np.float32)

    def _read_frames(self, index: int, draw: Draw, starts_s: list[float]) -> NDArray[np.uint8]:
        """Frames (S, T, height, width, 3) of all views within the audio that begins at
        ``starts_s``."""
        video = self.shards.info(index).video
        step = frame_step(self.shards.keys[index], video.fps, self.clip.fps)
        count, pairs = self.clip.frames, [(s, int(v)) for s in starts_s for v in draw.views]
        frames = np.empty((len(pairs), count, video.height, video.width, 3), np.uint8)
        for out, (start_s, view) in zip(frames, pairs, strict=True):
            first = self._first_frame(video, draw, start_s, step)
            self.shards.frames(index, view, first, count, step, out)
        return frames

    def _read_sphere(
        self, index: int, draw: Draw, starts_s: list[float], matrices: NDArray[np.float32]
    ) -> dict[str, NDArray[np.generic]]:
        """``panorama`` and, of ambisonics, ``field`` of ``Batch``."""
        info = self.shards.info(index)
        video = info.panorama
        assert video is not None  # `_check`
        step = frame_step(info.key, video.fps, self.clip.fps)
        shape = (len(starts_s), self.clip.frames, video.height, video.width, 3)
        panorama = np.empty(shape, np.uint8)
        for out, start_s in zip(panorama, starts_s, strict=True):
            first = self._first_frame(video, draw, start_s, step)
            self.shards.panorama(index, first, self.clip.frames, step, out)
        if info.audio.channels != ACN_CHANNELS or self.sound.audio != "foa":
            return {"panorama": panorama}
        # Back from the first view: what `_rotations` does, without its rotation to the view.
        view = info.views[draw.views[0]]
        to_view = view_foa_matrix(view.azimuth_deg, view.elevation_deg)
        if draw.mirror:
            to_view = MIRROR @ to_view @ MIRROR
        return {"panorama": panorama, "field": (to_view.T @ matrices[:, 0]).astype(np.float32)}

    def _first_frame(self, video: VideoInfo, draw: Draw, audio_s: float, step: int) -> int:
        """First stored frame to read, within the audio that begins at ``audio_s``. Where the draw
        gives a middle, frame T // 2 is at it."""
        span = (self.clip.frames - 1) * step + 1
        if draw.middle_s is None:
            first = int(np.ceil(audio_s * video.fps - 1e-6))
            end = (audio_s + self.sound.duration_s) * video.fps + 1e-6
            room = max(0, int(end) - self.clip.frames * step - first)
            start = first + min(int(draw.video_position * (room + 1)), room)
        else:
            start = max(0, round(draw.middle_s * video.fps) - self.clip.frames // 2 * step)
        return min(start, video.frames - span)

    def _check(self, info: SampleInfo) -> None:
        if len(info.views) < self.clip.views:
            raise TrainingError(
                f"{info.key} has {len(info.views)} views, fewer than the {self.clip.views} that "
                "are needed; ask for fewer with --views, or build the set with more"
            )
        if info.audio.sample_rate != self.sound.sample_rate:
            raise TrainingError(
                f"{info.key} has audio at {info.audio.sample_rate} Hz, but "
                f"{self.sound.sample_rate} Hz are needed; build the set with --sample-rate"
            )
        if info.audio.channels not in (ACN_CHANNELS, AUDIO_CHANNELS[self.sound.audio]):
            has = ", ".join(info.audio.channels) or "none"
            needed = ", ".join(AUDIO_CHANNELS[self.sound.audio])
            raise TrainingError(
                f"{info.key} has the audio channels {has}, but {needed} are needed, which "
                f"ambisonics provide; {_audio_remedy(info.audio.channels)}build the set with "
                "--audio foa"
            )
        frame_step(info.key, info.video.fps, self.clip.fps)
        if self.panorama and info.panorama is None:
            raise TrainingError(f"{info.key} has no panorama; build the set with --panorama")
        moments = self.clip.moments * (self.sound.duration_s + self.clip.margin_s)
        longest = max(moments - self.clip.margin_s, self.clip.frames / self.clip.fps)
        if _duration_s(info) < longest - 1e-6:
            raise TrainingError(
                f"{info.key} lasts {_duration_s(info):.2f} s, but {longest:g} s are needed; "
                "build the set with a longer --clip-duration"
            )


def _audio_remedy(channels: tuple[str, ...]) -> str:
    """The option that reads these channels, if there is one."""
    names = [name for name, needed in AUDIO_CHANNELS.items() if needed == channels]
    return f"give --audio {names[0]}, or " if names else ""


def first_info(shards: Shards) -> SampleInfo:
    """Record of the first readable clip. Raises TrainingError for an empty split, and ShardError
    for a damaged set."""
    if not len(shards):
        raise TrainingError(f"{shards.where} has no clips")
    fault: ShardError | None = None
    for index in range(min(len(shards), FIRST_CLIPS)):
        try:
            return shards.info(index)
        except ShardError as error:
            fault = fault or error
    assert fault is not None
    raise fault


def _check_alike(firsts: Sequence[SampleInfo], shards: Shards, panorama: bool) -> None:
    """Clips of several sets become one batch. ``firsts``: a record of each set."""
    for name, option, found in (
        ("crops of", "--size", [_size(one.video) for one in firsts]),
        ("audio channels", "--audio", [" ".join(one.audio.channels) for one in firsts]),
        ("panoramas of", "--panorama", [_size(one.panorama) if panorama else "" for one in firsts]),
    ):
        for one, here in zip(sets_in(shards), found, strict=True):
            if here != found[0]:
                raise TrainingError(
                    f"{one.root} has {name} {here}, but {sets_in(shards)[0].root} has {found[0]}: "
                    f"build both with the same {option}"
                )


def _size(video: VideoInfo | None) -> str:
    return "" if video is None else f"{video.width}x{video.height}"


def frame_step(key: str, stored_fps: float, wanted_fps: float) -> int:
    """Stride between stored frames. Raises TrainingError where it is no whole number."""
    step = stored_fps / wanted_fps
    if abs(step - round(step)) > 1e-6 or step < 1:
        raise TrainingError(
            f"{key} has {stored_fps:g} frames per second, no multiple of the {wanted_fps:g} that "
            "are needed; build the set with --fps"
        )
    return round(step)


def _duration_s(info: SampleInfo) -> float:
    """Duration over which there are both video and audio."""
    return min(info.audio.samples / info.audio.sample_rate, info.video.frames / info.video.fps)


def _own_channels(draw: Draw, channels: int) -> NDArray[np.float32]:
    """Matrices (V, channels, V * channels) that select each view's own channels; mirrored, left and
    right are exchanged."""
    views = len(draw.views)
    every = np.eye(views * channels, dtype=np.float32)
    matrices = every.reshape(views, channels, views * channels)
    return matrices[:, ::-1].copy() if draw.mirror else matrices
