"""Training of a SELD network on some labels, and its predictions of all test recordings."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from avtrain.config import ClipConfig
from avtrain.errors import TrainingError
from avtrain.evals.evaluation import Evaluation
from avtrain.evals.frozen import Networks
from avtrain.evals.progress import Progress
from avtrain.evals.seld.data import Place, SeldBatch, SeldWindows, load_windows
from avtrain.evals.seld.detections import Detection, Detections
from avtrain.evals.seld.labels import LabelledClips
from avtrain.evals.seld.loss import adpit_loss
from avtrain.evals.seld.model import SeldNet, audible_sources
from avtrain.evals.seld.protocol import SeldProtocol


@dataclass(frozen=True)
class SeldRun:
    """One evaluation: networks that learn from the labels of ``train``, and are tested on ``test``.
    ``clip`` says which frames of which views are read."""

    run: Evaluation
    networks: Networks
    train: LabelledClips
    test: LabelledClips
    classes: tuple[int, ...]
    protocol: SeldProtocol
    clip: ClipConfig

    def fit(self, progress: Progress, bar: tqdm[Any]) -> tuple[SeldNet, list[float]]:
        """The trained network, and the mean loss between two saves. Resumes from ``progress``."""
        protocol, seed = self.protocol, self.run.options.seed
        torch.manual_seed(seed)
        net = SeldNet(self.networks, len(self.classes), protocol).to(self.run.device)
        learning = [p for p in net.parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(learning, lr=protocol.learning_rate, fused=True)
        milestones = [round(part * protocol.saves) for part in protocol.milestones]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, protocol.gamma)
        losses: list[float] = []
        state = progress.load() or {}
        if state:
            parts = {"network": net.state_dict(), "optimiser": optimiser}
            example = {"losses": [0.0], **parts, "schedule": schedule.state_dict()}
            progress.check(state, example)
            net.load_state_dict(state["network"])
            optimiser.load_state_dict(state["optimiser"])
            schedule.load_state_dict(state["schedule"])
            losses = state["losses"]
        size = protocol.batch_size
        edges = np.linspace(0, protocol.steps, protocol.saves + 1).round().astype(int)
        done = int(edges[len(losses)])
        bar.update(done * size)
        clips = self.run.train_clips(self.clip)
        dataset = SeldWindows(clips, self.train, self.classes, protocol, rotates=True)
        places = [self._draw(step) for step in range(done, protocol.steps)]
        device, unreadable = self.run.device, self.run.unreadable_train
        net.train()
        with closing(
            load_windows(dataset, places, self.run.workers, device, unreadable)
        ) as batches:
            for save in range(len(losses), protocol.saves):
                # Randomness is a function of the step, so that a resumed training ends the same.
                torch.manual_seed(seed * 10_007 + save)
                found = []
                for batch in islice(batches, int(edges[save + 1] - edges[save])):
                    bar.update(size)
                    if batch is None:
                        continue
                    loss = self._loss(net, batch)
                    if not torch.isfinite(loss):
                        raise TrainingError(
                            f"the loss is {loss.item()}; nothing since the last save was kept: are "
                            "the checkpoint's weights sound?"
                        )
                    optimiser.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
                    found.append(loss.item())
                schedule.step()
                losses.append(float(np.mean(found)) if found else 0.0)
                progress.save(
                    {
                        "losses": losses,
                        "network": net.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "schedule": schedule.state_dict(),
                    }
                )
        return net.eval(), losses

    def _draw(self, step: int) -> list[Place]:
        """Clips of a step, each as often as it has frames: a function of the seed and the step."""
        samples = np.array(list(self.train.frames))
        weights = np.array([found.count for found in self.train.frames.values()], np.float64)
        rng = np.random.default_rng([self.run.options.seed, step, 3])
        size = self.protocol.batch_size
        drawn = rng.choice(samples, size, p=weights / weights.sum())
        return [(step * size + place, int(sample)) for place, sample in enumerate(drawn)]

    def _tracks(self, net: SeldNet, batch: SeldBatch) -> Tensor:
        inputs = batch.audio_input(self.networks.features)
        video = batch.video_input(self.clip.size)
        out: Tensor = net(inputs, batch.vectors.shape[1], video, batch.directions)
        return out

    def _loss(self, net: SeldNet, batch: SeldBatch) -> Tensor:
        weight = self.protocol.distance_weight
        of_class = adpit_loss(
            self._tracks(net, batch), batch.vectors, batch.log_distance, batch.count, weight
        )
        of_class = torch.where(batch.count > 0, self.protocol.active_weight * of_class, of_class)
        return of_class[batch.inside].mean()

    @torch.no_grad()
    def predict(self, net: SeldNet, bar: tqdm[Any]) -> dict[int, list[Detection]]:
        """Sources in the frames of each readable test clip, by its number. Where windows overlap,
        a frame is that of the window whose middle is the nearest."""
        clips = self.run.test_clips(self.clip)
        dataset = SeldWindows(clips, self.test, self.classes, self.protocol, rotates=False)
        places: list[list[Place]] = [[(0, sample)] for sample in self.test.frames]
        found = {}
        device, unreadable = self.run.device, self.run.unreadable_test
        with closing(load_windows(dataset, places, self.run.workers, device, unreadable)) as loaded:
            for batch in loaded:
                bar.update(1)
                if batch is None:
                    continue
                parts = [self._tracks(net, part) for part in batch.parts(self.protocol.batch_size)]
                tracks = torch.cat(parts).double().cpu().numpy()
                sample = int(batch.index[0])
                frames, length = self.test.frames[sample], self.protocol.window_frames
                numbers = np.arange(frames.count)
                middles = batch.begin.cpu().numpy() + (length - 1) / 2
                window = np.abs(numbers[:, None] - middles).argmin(axis=1)
                chosen = tracks[window, numbers - batch.begin.cpu().numpy()[window]]
                found[sample] = audible_sources(chosen, self.classes, frames.first, self.protocol)
        return found


@dataclass(frozen=True)
class Recording:
    """True and estimated sources of a recording in the frames that its clips cover; ``frames``: one
    more than the last of them. ``twice``: frames that two clips cover, which count once."""

    source: str
    reference: Detections
    estimate: Detections
    frames: int
    twice: int


def join_recordings(
    test: LabelledClips, found: dict[int, list[Detection]], distances: bool = True
) -> list[Recording]:
    """Join the clips of each recording in time. Of clips that overlap the earlier one has the
    frame. Recordings without a readable clip are left out. Without ``distances``, none were
    learned, and those of the estimates are NaN."""
    recordings = []
    for source, clips in test.by_source().items():
        covered: set[int] = set()
        reference: list[Detection] = []
        estimate: list[Detection] = []
        twice = 0
        for clip in clips:
            if clip not in found:
                continue
            labels = test.frames[clip]
            frames = set(range(labels.first, labels.first + labels.count))
            new = frames - covered
            twice += len(frames) - len(new)
            reference += [event for event in labels.events or () if event.frame in new]
            mine = [event for event in found[clip] if event.frame in new]
            estimate += mine if distances else [replace(one, distance_m=math.nan) for one in mine]
            covered |= frames
        if covered:
            true, guessed = Detections.from_rows(reference), Detections.from_rows(estimate)
            recordings.append(Recording(source, true, guessed, max(covered) + 1, twice))
    return recordings
