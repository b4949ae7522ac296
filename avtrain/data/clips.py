"""From a shard set to samples: what of a clip is read as drawn, and what workers hand over."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from avtrain.config import AugmentConfig, ClipConfig
from avtrain.data.draws import Draw
from avtrain.data.published_conventions import published_view_matrix
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
from shards.reader import ShardSet
from shards.schema import SampleInfo, VideoInfo

FIRST_CLIPS = 10
"""If so many are damaged, from the first on, a set is."""


class Clips(Dataset[dict[str, NDArray[np.generic]]]):
    """Samples by (turn, index). With ``windows`` = W the turn is the number of one of W fixed
    windows, evenly spread over the clip; else windows are random. ``first`` says what a clip of the
    set is like."""

    def __init__(
        self,
        shards: ShardSet,
        clip: ClipConfig,
        sound: FeatureConfig,
        augment: AugmentConfig,
        seed: int,
        windows: int | None = None,
    ) -> None:
        self.shards = shards
        self.clip = clip
        self.sound = sound
        self.augment = augment
        self.seed = seed
        self.windows = windows
        self.first = first_info(shards)
        self._check(self.first)

    def draw(self, turn: int, index: int) -> Draw:
        """Raises TrainingError where the clip cannot give what the settings ask for."""
        info = self.shards.info(index)
        self._check(info)
        place = [self.seed, turn, index]
        draw = Draw.from_seed(place, len(info.views), self.clip, self.augment)
        return draw if self.windows is None else draw.fixed(turn, self.windows)

    def __getitem__(self, place: tuple[int, ...]) -> dict[str, NDArray[np.generic]]:
        """The fields of a batch for one clip: the first of ``place`` = (turn, indices…) that can
        be read, with ``faulty``, the indices before, and ``faults``, what is wrong with them:
        damage, or what no clip of the run may be (too short, another rate, …). -1 is no clip.

        Raises ShardError where none can; of a single index, which nothing may replace, what is
        wrong with it.
        """
        turn, *indices = place
        if len(indices) == 1:
            return self.read(indices[0], self.draw(turn, indices[0]))
        faulty: list[int] = []
        faults: list[str] = []
        for index in indices:
            if index < 0:
                continue
            try:
                fields_of_clip = self.read(index, self.draw(turn, index))
            except (ShardError, TrainingError) as error:
                faulty.append(index)
                faults.append(str(error))
                continue
            return fields_of_clip | {"faulty": np.array(faulty), "faults": np.array(faults, str)}
        raise ShardError(
            f"{faults[0]}; no clip of another recording is left to take its place: mend the set "
            "(`avprep verify` says what is damaged), or build it without this recording"
        )

    def read(self, index: int, draw: Draw) -> dict[str, NDArray[np.generic]]:
        """The fields of a batch for one clip as drawn."""
        starts_s, audio, matrices, misaligned = self.read_audio(index, draw)
        return {
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
            matrices = misaligned = _own_channels(draw, self.sound.heard)
        times = (len(starts), 1, 1, 1)
        starts_s = [start / info.audio.sample_rate for start in starts]
        return starts_s, audio, np.tile(matrices, times), np.tile(misaligned, times)

    def starts_s(self, index: int, draw: Draw) -> list[float]:
        """When in the clip the moments of a draw begin."""
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
        """``matrices`` and ``misaligned`` (V, heard, 4) of ``Batch``.

        With R_v the rotation to view v and S the one that the stored sound has already had, the
        sound of view v is R_v S^T of the stored one. Mirroring is the same for all views: the
        mirrored world seen from mirrored viewpoints. Beams come last. By the published conventions
        R_v is no rotation, and mirroring leaves the sound as it is.
        """
        places = [self.shards.info(index).views[view] for view in draw.views]
        published = self.sound.conventions == "published"
        matrix = published_view_matrix if published else view_foa_matrix
        views = np.stack([matrix(v.azimuth_deg, v.elevation_deg) for v in places])
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
        places = [self.shards.info(index).views[view] for view in draw.views]
        azimuth = np.array([view.azimuth_deg for view in places]) + draw.frame_yaw_deg
        directions = unit_vector(azimuth, [view.elevation_deg for view in places])
        return (directions * [1, -1 if draw.mirror else 1, 1]).astype(np.float32)

    def _read_frames(self, index: int, draw: Draw, starts_s: list[float]) -> NDArray[np.uint8]:
        """Frames (S, T, height, width, 3) of all views, inside the sounds that begin at
        ``starts_s``."""
        video = self.shards.info(index).video
        step = frame_step(self.shards.keys[index], video.fps, self.clip.fps)
        count, places = self.clip.frames, [(s, int(v)) for s in starts_s for v in draw.views]
        frames = np.empty((len(places), count, video.height, video.width, 3), np.uint8)
        for out, (start_s, view) in zip(frames, places, strict=True):
            first = self._first_frame(video, draw, start_s, step)
            self.shards.frames(index, view, first, count, step, out)
        return frames

    def _first_frame(self, video: VideoInfo, draw: Draw, sound_s: float, step: int) -> int:
        """Of those inside the sound that begins at ``sound_s``; frame T // 2 is in its middle."""
        span = (self.clip.frames - 1) * step + 1
        if draw.middle_s is None:
            first = int(np.ceil(sound_s * video.fps - 1e-6))
            end = (sound_s + self.sound.duration_s) * video.fps + 1e-6
            room = max(0, int(end) - self.clip.frames * step - first)
            start = first + min(int(draw.video_position * (room + 1)), room)
        else:
            start = max(0, round(draw.middle_s * video.fps) - self.clip.frames // 2 * step)
        return min(start, video.frames - span)

    def _check(self, info: SampleInfo) -> None:
        if len(info.views) < self.clip.views:
            raise TrainingError(
                f"{info.key} has {len(info.views)} views, fewer than the {self.clip.views} asked "
                "for; set --views"
            )
        if info.audio.sample_rate != self.sound.sample_rate:
            raise TrainingError(
                f"{info.key} has sound at {info.audio.sample_rate} Hz and {self.sound.sample_rate} "
                "are needed; build the set with --sample-rate"
            )
        if info.audio.channels not in (ACN_CHANNELS, AUDIO_CHANNELS[self.sound.audio]):
            has = ", ".join(info.audio.channels) or "none"
            needed = ", ".join(AUDIO_CHANNELS[self.sound.audio])
            raise TrainingError(
                f"{info.key} has sound of the channels {has} and {needed} are needed, which "
                f"ambisonics give; set --audio, or build the set with --audio foa"
            )
        frame_step(info.key, info.video.fps, self.clip.fps)
        moments = self.clip.moments * (self.sound.duration_s + self.clip.margin_s)
        longest = max(moments - self.clip.margin_s, self.clip.frames / self.clip.fps)
        if _duration_s(info) < longest - 1e-6:
            raise TrainingError(
                f"{info.key} lasts {_duration_s(info):.2f} s and {longest:g} s are needed; "
                "build the set with a longer --clip-duration"
            )


def first_info(shards: ShardSet) -> SampleInfo:
    """What a clip of the set is like. Raises TrainingError, and ShardError for a damaged set."""
    if not len(shards):
        raise TrainingError(f"{shards.root} has no clips in its split {shards.split!r}")
    fault: ShardError | None = None
    for index in range(min(len(shards), FIRST_CLIPS)):
        try:
            return shards.info(index)
        except ShardError as error:
            fault = fault or error
    assert fault is not None
    raise fault


def frame_step(key: str, stored_fps: float, wanted_fps: float) -> int:
    """Every how manieth stored frame is taken; raises TrainingError where that is no number."""
    step = stored_fps / wanted_fps
    if abs(step - round(step)) > 1e-6 or step < 1:
        raise TrainingError(
            f"{key} has {stored_fps:g} frames a second, no multiple of the {wanted_fps:g} that are "
            "needed; build the set with --fps"
        )
    return round(step)


def _duration_s(info: SampleInfo) -> float:
    """How long there is both picture and sound."""
    return min(info.audio.samples / info.audio.sample_rate, info.video.frames / info.video.fps)


def _own_channels(draw: Draw, heard: int) -> NDArray[np.float32]:
    """Matrices (V, heard, V * heard) that give each view its own of all views' channels; mirrored,
    left and right are exchanged."""
    views = len(draw.views)
    matrices = np.eye(views * heard, dtype=np.float32).reshape(views, heard, views * heard)
    return matrices[:, ::-1].copy() if draw.mirror else matrices
