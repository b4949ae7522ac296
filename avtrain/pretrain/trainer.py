"""Networks in training: forward, backward, optimiser, and their state in a checkpoint."""

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
from avtrain.own_networks import PAPERS, Factories, build_networks
from avtrain.pretrain.objective import Objective
from avtrain.runtime.device import rng_state, set_rng_state
from avtrain.runtime.distributed import World, make_batch_norm_global


class Trainer:
    """Networks, features and optimiser of a run, on this rank's device, after ``steps`` steps of
    the optimiser. ``seconds`` are the times
    spent in parts of the steps; they include the GPU's work only with ``exact_times``, which waits
    for it."""

    def __init__(
        self,
        config: Config,
        world: World,
        compiled: bool = False,
        factories: Factories = PAPERS,
    ) -> None:
        self.config, self.world = config, world
        device = world.device
        torch.manual_seed(config.seed)
        self.features = Features(config.sound).to(device)
        self.model = build_networks(config, factories).channels_last().to(device).train()
        make_batch_norm_global(self.model, world)
        self.model.freeze(config.frozen)
        objective = Objective(self.model, config, world)
        if compiled:  # in place, so that weights keep their names
            self.model.video.compile()
            self.model.audio.compile()
        self.objective = world.wrap(objective)
        groups = self.model.parameter_groups(config.transformer_warmup > 0)
        self.optimiser = torch.optim.Adam(
            [{"params": group} for group in groups],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.steps = 0
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.exact_times = False

    def init_from(self, start: Checkpoint) -> None:
        """Take networks and, if it has statistics, features from another run."""
        start.check_networks(self.model)
        self.model.load_state_dict(start.model)
        self.features.load_state_dict(start.features or self.features.state_dict())

    def resume_from(self, earlier: Checkpoint) -> None:
        """Take the whole state from an earlier start of this run."""
        earlier.check_networks(self.model)
        self.model.load_state_dict(earlier.model)
        self.features.load_state_dict(earlier.features)
        self.optimiser.load_state_dict(earlier.optimiser)
        self.scaler.load_state_dict(earlier.scaler)
        self.steps = earlier.total_steps
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

    def forward(self, batch: Batch, last: bool = True) -> ContrastiveLoss:
        """Loss of one micro-batch; ``batch`` is this rank's part of it."""
        with self.timed("features"):
            batch = batch.to(self.world.device)
            video = batch.video_input(self.config.clip.size)
            audio = batch.audio_input(self.features, batch.matrices)
        # The forward pass decides whether the backward pass averages gradients over ranks.
        with self.timed("networks"), nullcontext() if last else self._without_averaging():
            loss: ContrastiveLoss = self.objective(video, audio, batch.directions)
        return loss

    def backward_and_step(self, loss: ContrastiveLoss, last: bool) -> None:
        """Add the gradients of a micro-batch; after the ``last`` one, take the optimiser step."""
        mean = loss.value / self.config.pieces
        with self.timed("networks"):
            self.scaler.scale(mean).backward()  # type: ignore[no-untyped-call]
        if last:
            with self.timed("optimiser"):
                self.steps += 1
                if warmup := self.config.transformer_warmup:
                    rate = self.config.learning_rate * min(1.0, self.steps / warmup)
                    self.optimiser.param_groups[-1]["lr"] = rate
                self.scaler.step(self.optimiser)
                self.scaler.update()
                self.optimiser.zero_grad()

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the block's time to that of ``part``."""
        began = time.perf_counter()
        with torch.profiler.record_function(part):
            yield
        if self.exact_times and self.world.device.type == "cuda":
            torch.cuda.synchronize(self.world.device)
        self.seconds[part] += time.perf_counter() - began

    @contextmanager
    def _without_averaging(self) -> Iterator[None]:
        """Gradients stay on this rank, to be averaged with those of the last micro-batch."""
        wrapped = self.objective
        with wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext():
            yield
