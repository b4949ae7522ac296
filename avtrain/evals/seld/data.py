"""Windows of clips for SELD: their sound field, rotated with its targets, and the views' video."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from avtrain.data.augment import prepare_video
from avtrain.data.clips import Clips
from avtrain.data.loader import read_ahead
from avtrain.data.published_conventions import published_view_matrix
from avtrain.data.unreadable import Unreadable
from avtrain.errors import TrainingError
from avtrain.evals.seld.detections import FRAME_S
from avtrain.evals.seld.labels import LabelledClips, targets
from avtrain.evals.seld.protocol import TRACKS, SeldProtocol
from avtrain.networks.features import FeatureConfig, Features
from shards.geometry import foa_matrix, unit_vector, view_rotation

Place = tuple[int, int]
"""(number of the draw, sample) in training, (0, sample) in a test."""
Item = dict[str, NDArray[np.generic]]
_MIRROR_XYZ = np.diag([1.0, -1.0, 1.0])


@dataclass(frozen=True)
class SeldBatch:
    """N windows of clips with W frames and C classes."""

    index: Tensor
    """(N,) numbers of the clips in the set."""
    begin: Tensor
    """(N,) first frame, counted in the clip."""
    audio: Tensor
    """float32 (N, 4, samples): ambisonics of the recording (ACN, SN3D), 0 beyond the clip's end."""
    matrices: Tensor
    """float32 (N, 1, channels, 4): from the recording's sound field to the rotated one."""
    vectors: Tensor
    """float32 (N, W, C, tracks, 3): directions in the rotated field, 0 where nothing sounds."""
    log_distance: Tensor
    """float32 (N, W, C, tracks): natural logarithm of metres, NaN where unknown."""
    count: Tensor
    """int64 (N, W, C), number of sources, at most `TRACKS`."""
    inside: Tensor
    """bool (N, W): whether the frame is in the clip."""
    frames: Tensor
    """uint8 (N, V, T, height, width, 3) at the middle of the window; V = 0 without video."""
    directions: Tensor
    """float32 (N, V, 3), where the views look in the rotated field."""
    mirror: Tensor
    """bool (N,): left and right are exchanged."""

    def pin_memory(self) -> SeldBatch:
        return self._each(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device) -> SeldBatch:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> SeldBatch:
        return SeldBatch(*(change(getattr(self, field.name)) for field in fields(self)))

    def parts(self, size: int) -> list[SeldBatch]:
        """The same windows in parts of at most ``size``."""
        tensors = (getattr(self, field.name).split(size) for field in fields(self))
        return [SeldBatch(*part) for part in zip(*tensors, strict=True)]

    def audio_input(self, features: Features) -> Tensor:
        """Network input (N, C, time, mel)."""
        longer = _longer(features, self.vectors.shape[1])
        samples = self.audio.shape[-1] // longer.config.hop_length
        found: Tensor = longer(self.audio, self.matrices)
        return found[:, 0, :, :samples]

    def video_input(self, size: int) -> Tensor | None:
        """Network input (N, V, 3, T, size, size), None without video."""
        if not self.frames.shape[1]:
            return None
        plain = torch.tensor([1.0, 1.0, 1.0, 0.0], device=self.frames.device)
        return prepare_video(self.frames, size, plain.expand(len(self.frames), 4), self.mirror)


@lru_cache(4)
def _features_of(config: FeatureConfig, device: torch.device) -> Features:
    return Features(config).to(device)


def _longer(features: Features, frames: int) -> Features:
    """The same features of windows of ``frames`` frames of 100 ms."""
    config = replace(features.config, duration_s=frames * FRAME_S)
    longer = _features_of(config, features.mean.device)
    longer.load_state_dict(features.state_dict())
    return longer


class SeldWindows(Dataset[list[Item]]):
    """Windows of clips: a random one, rotated at random, in training; in a test (``rotates`` false)
    all those that `window_starts` names, as recorded."""

    def __init__(
        self,
        clips: Clips,
        labelled: LabelledClips,
        classes: tuple[int, ...],
        protocol: SeldProtocol,
        rotates: bool,
    ) -> None:
        self.clips, self.labelled, self.classes = clips, labelled, classes
        self.protocol, self.rotates = protocol, rotates

    def __getitem__(self, place: Place) -> list[Item]:
        number, sample = place
        frames, length = self.labelled.frames[sample], self.protocol.window_frames
        if not self.rotates:
            starts = window_starts(frames.count, length)
            return [self._window(sample, begin, np.eye(3)) for begin in starts]
        rng = np.random.default_rng([self.clips.seed, number, sample, 2])
        begin = int(rng.integers(max(0, frames.count - length) + 1))
        # A view's crop would be tilted by a pitch of the field, so that with video it only turns.
        pitch_deg = 0.0 if self.protocol.with_video else self.protocol.pitch_deg
        turn = view_rotation(rng.uniform(-180, 180), rng.uniform(-pitch_deg, pitch_deg))
        turn = _MIRROR_XYZ @ turn if rng.random() < 0.5 else turn
        return [self._window(sample, begin, turn)]

    def _window(self, sample: int, begin: int, turn: NDArray[np.float64]) -> Item:
        """``turn`` (3, 3) rotates the recording, and mirrors it if its determinant is -1: sound,
        targets and views alike."""
        length = self.protocol.window_frames
        found = self.labelled.frames[sample]
        start_s = found.offset_s + begin * FRAME_S
        places, sources = targets(found, begin, length, self.classes, TRACKS)
        vectors = unit_vector(places[..., 0], places[..., 1]) @ turn.T
        audio, matrix = self._audio(sample, start_s)
        pictures, directions = self._video(sample, start_s + length * FRAME_S / 2)
        with np.errstate(divide="ignore"):
            log_distance = np.log(places[..., 2])
        matrix = foa_matrix(turn) @ matrix
        if self.clips.sound.conventions == "published":
            # That code did not mirror the sound; here it is, before its channels are exchanged.
            matrix = published_view_matrix(0.0, 0.0) @ matrix
        return {
            "index": np.array(sample),
            "begin": np.array(begin),
            "audio": audio,
            "matrices": matrix[None].astype(np.float32),
            "vectors": np.nan_to_num(vectors).astype(np.float32),
            "log_distance": log_distance.astype(np.float32),
            "count": np.minimum(sources, TRACKS),
            "inside": np.arange(begin, begin + length) < found.count,
            "frames": pictures,
            "directions": (directions @ turn.T).astype(np.float32),
            "mirror": np.array(np.linalg.det(turn) < 0),
        }

    def _audio(
        self, sample: int, start_s: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Audio (4, samples) as stored for the first view, and the matrix that turns it back to the
        recording's own field."""
        shards, rate = self.clips.shards, self.clips.sound.sample_rate
        info = shards.info(sample)
        if info.audio.sample_rate != rate:
            raise TrainingError(
                f"{info.key} has audio at {info.audio.sample_rate} Hz, but {rate} Hz are needed; "
                "build the set with --sample-rate"
            )
        length = round(self.protocol.window_frames * FRAME_S * rate)
        start = round(start_s * rate)
        audio = np.zeros((4, length), np.float32)
        read, stored = shards.foa(sample, start, min(length, info.audio.samples - start))
        audio[:, : read.shape[1]] = read
        return audio, stored.T

    def _video(self, sample: int, middle_s: float) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Frames (V, T, height, width, 3) of the first views around a time, and the views'
        directions (V, 3) in the recording's frame; none without video."""
        if not self.protocol.with_video:
            return np.zeros((0, 1, 1, 1, 3), np.uint8), np.zeros((0, 3))
        info, views = self.clips.shards.info(sample), self.clips.clip.views
        draw = replace(self.clips.draw(0, sample), views=np.arange(views), mirror=False)
        pictures = self.clips.read(sample, replace(draw, middle_s=middle_s))["frames"]
        looks = [(view.azimuth_deg, view.elevation_deg) for view in info.views[:views]]
        return np.asarray(pictures, np.uint8), unit_vector(*np.array(looks).T)


def window_starts(frames: int, length: int) -> list[int]:
    """First frames of windows of ``length`` that overlap by half and cover a clip."""
    last = max(0, frames - length)
    return sorted({*range(0, last, max(1, length // 2)), last})


def load_windows(
    dataset: SeldWindows,
    batches: Sequence[list[Place]],
    workers: int,
    device: torch.device,
    unreadable: Unreadable,
) -> Generator[SeldBatch | None]:
    """The batches on the device, None where no clip is readable; see `read_ahead`."""
    pin = device.type == "cuda"
    with closing(read_ahead(dataset, batches, _collate, workers, pin, unreadable)) as loaded:
        for batch in loaded:
            yield None if batch is None else batch.to(device)


def _collate(items: list[list[Item]]) -> SeldBatch:
    windows = [window for item in items for window in item]
    sizes = {window["frames"].shape for window in windows}
    if len(sizes) > 1:
        raise TrainingError(f"the clips' crops differ in size or number: {sorted(sizes)}")
    arrays: dict[str, Any] = {
        field.name: np.stack([window[field.name] for window in windows])
        for field in fields(SeldBatch)
    }
    return SeldBatch(**{name: torch.from_numpy(array) for name, array in arrays.items()})
