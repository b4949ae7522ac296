"""Networks in training: a step, and all that a checkpoint keeps of them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.nn.parallel import DistributedDataParallel

from avtrain.checkpoint import Checkpoint
from avtrain.config import Config
from avtrain.data.batch import Batch
from avtrain.networks.features import Features
from avtrain.networks.losses import ContrastiveLoss
from avtrain.networks.models import AudioVisual
from avtrain.pretrain.objective import Objective
from avtrain.runtime.device import rng_state, set_rng_state
from avtrain.runtime.distributed import World, make_batch_norm_global


class Trainer:
    """Networks, features and optimiser of a run, on this process' device. ``seconds`` is what
    parts of the steps took; of a GPU's work only where ``exact_times`` waits for it."""

    def __init__(self, config: Config, world: World, compiled: bool = False) -> None:
        self.config, self.world = config, world
        device = world.device
        torch.manual_seed(config.seed)
        self.features = Features(config.sound).to(device)
        self.model = AudioVisual(config.model).channels_last().to(device).train()
        make_batch_norm_global(self.model, world)
        objective = Objective(self.model, config, world)
        if compiled:  # in place, so that weights keep their names
            self.model.video.compile()
            self.model.audio.compile()
        self.objective = world.wrap(objective)
        self.optimiser = torch.optim.Adam(
            self.model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.exact_times = False

    def init_from(self, start: Checkpoint) -> None:
        """Take networks and features of another run; of one without statistics the networks."""
        self.model.load_state_dict(start.model)
        self.features.load_state_dict(start.features or self.features.state_dict())

    def resume_from(self, earlier: Checkpoint) -> None:
        """Take the whole state of an earlier start of this run."""
        self.model.load_state_dict(earlier.model)
        self.features.load_state_dict(earlier.features)
        self.optimiser.load_state_dict(earlier.optimiser)
        self.scaler.load_state_dict(earlier.scaler)
        set_rng_state(earlier.rng, self.world.device)

    def checkpoint(self, data: str, split: str, epoch: int, step: int, total: int) -> Checkpoint:
        """The state after ``total`` steps; ``step`` of ``epoch`` is the next one."""
        return Checkpoint(
            config=self.config.to_dict(),
            data=data,
            split=split,
            epoch=epoch,
            step=step,
            total_steps=total,
            model=self.model.state_dict(),
            features=self.features.state_dict(),
            optimiser=self.optimiser.state_dict(),
            rng=rng_state(self.world.device),
            scaler=self.scaler.state_dict(),
        )

    def forward(self, batch: Batch, last_piece: bool = True) -> ContrastiveLoss:
        """Of one of a step's pieces, of which ``batch`` is this process' part."""
        with self.timed("features"):
            batch = batch.to(self.world.device)
            pictures = batch.video_input(self.config.clip.size)
            sound = batch.audio_input(self.features, batch.matrices)
        # That gradients stay here is decided by the forward pass.
        with self.timed("networks"), nullcontext() if last_piece else self._alone():
            contrast: ContrastiveLoss = self.objective(pictures, sound, batch.directions)
        return contrast

    def backward_and_step(self, contrast: ContrastiveLoss, last_piece: bool) -> None:
        """Add the gradients of one of the step's pieces, and after the last one take the step."""
        loss = contrast.loss / self.config.pieces
        with self.timed("networks"):
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if last_piece:
            with self.timed("optimiser"):
                self.scaler.step(self.optimiser)
                self.scaler.update()
                self.optimiser.zero_grad()

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count the block's time to a part of the steps."""
        began = time.perf_counter()
        with torch.profiler.record_function(part):
            yield
        if self.exact_times and self.world.device.type == "cuda":
            torch.cuda.synchronize(self.world.device)
        self.seconds[part] += time.perf_counter() - began

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Gradients stay in this process, to be averaged with those of the last piece."""
        wrapped = self.objective
        with wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext():
            yield
