"""Set-up of a pretraining run: data, networks, and the state it starts from. Writes nothing."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

from avtrain.checkpoint import Checkpoint
from avtrain.config import Config
from avtrain.data.batch import Batch
from avtrain.data.clips import Clips
from avtrain.data.loader import load
from avtrain.data.plan import Plan, Share, Step
from avtrain.data.shard_sets import Roots, Shards, open_sets, sets_in
from avtrain.data.statistics import fit_statistics
from avtrain.errors import TrainingError
from avtrain.own_networks import PAPERS, Factories
from avtrain.pretrain.checks import check_agreed
from avtrain.pretrain.trainer import Trainer
from avtrain.run_folder import CHECKPOINT, CONFIG, LOG
from avtrain.runtime.device import check_precision, default_workers
from avtrain.runtime.distributed import World
from shards.errors import show
from shards.reader import CACHE_BYTES


@dataclass(frozen=True)
class RunOptions:
    """What may change from one start of a run to the next. ``steps`` ends it early.

    A checkpoint is written every ``checkpoint_steps`` steps and at the end of every epoch; the
    newest ``keep_last`` are kept, and those of every ``keep_every`` steps. ``max_faults`` is the
    largest share of clips that may be unreadable and replaced by others. ``cache`` is a local
    folder for copies of shards, of at most ``cache_bytes``.
    """

    out: Path
    split: str = "train"
    init_from: Path | None = None
    resume: bool = False
    steps: int | None = None
    checkpoint_steps: int = 500
    keep_last: int = 1
    keep_every: int | None = None
    max_faults: float = 0.01
    compiled: bool = False
    cache: Path | None = None
    cache_bytes: int = CACHE_BYTES
    report_to: tuple[str, ...] = ()
    device: str = "auto"
    workers: int | None = None
    factories: Factories = PAPERS


@dataclass
class Run:
    """A run that can take its next step: step ``step`` of ``epoch``, after ``total`` steps.

    ``last_total`` is the number of steps after which it is finished.
    """

    config: Config
    shards: Shards
    clips: Clips
    plan: Plan
    share: Share
    trainer: Trainer
    workers: int
    epoch: int
    step: int
    total: int
    last_total: int

    @property
    def finished(self) -> bool:
        return self.total >= self.last_total

    def batches(self) -> Generator[tuple[Step, Batch]]:
        """All micro-batches from the next step on; of each this rank's part."""
        epochs = range(self.epoch, self.config.epochs)
        pinned = self.trainer.world.device.type == "cuda"
        return load(self.clips, self.plan, epochs, self.step, self.workers, pinned, self.share)

    def advance(self, step: Step) -> None:
        """Count ``step`` as taken."""
        self.total += 1
        self.epoch, self.step = step.epoch, step.step + 1
        if step.last_of_epoch:
            self.epoch, self.step = step.epoch + 1, 0

    def checkpoint(self) -> Checkpoint:
        """The state between the steps taken and the next one."""
        data, split = self.shards.sha256, self.shards.split
        return self.trainer.checkpoint(data, split, self.epoch, self.step, self.total)

    def remarks(self) -> list[str]:
        """A line for each of several sets: how much of what an epoch shows is of it. And one where
        batches are smaller than asked for."""
        shown, batches = self.plan.shown_per_pass(), self.plan.first_pass
        wanted, fewest = self.config.batch_size, min(map(len, batches))
        lines = [
            f"{clips / sum(shown):.1%} of the clips of an epoch are of {one.root}, which shows its "
            f"{len(one)} clips {clips * self.plan.passes_per_epoch / len(one):.2f} times"
            for one, clips in zip(sets_in(self.shards), shown, strict=True)
            if len(shown) > 1
        ]
        if len(batches) > -(-sum(map(len, batches)) // wanted):
            lines.append(
                f"check: steps show {fewest} to {fewest + 1} clips instead of {wanted}, since no "
                "step shows two clips of a source; a source has more than its share of the clips"
            )
        return lines

    def announce(self) -> None:
        """Print the size of the networks and of the data to standard error."""
        million = sum(parameter.numel() for parameter in self.trainer.model.parameters()) / 1e6
        config, shards, world = self.config, self.shards, self.trainer.world
        show(
            f"{config.task} with preset {config.preset}: {million:.2f} million parameters on "
            f"{f'{world.size} x ' * (world.size > 1)}{world.device.type}; "
            f"{len(shards)} clips of {len(set(shards.sources))} sources, "
            f"{config.batch_size} clips x {config.clip.views} views a step; "
            f"steps {self.total + 1} to {self.last_total}",
            *self.remarks(),
            err=True,
        )


def prepare(roots: Roots, config: Config, options: RunOptions, world: World) -> Run:
    """Everything before the first step. Raises TrainingError and ShardError."""
    config.check()
    check_precision(config.precision, world.device)
    shards = open_sets(roots, options.split, options.cache, options.cache_bytes)
    shards.check_files()
    start = _find_start(options)
    config = start.adapt(config)
    clips = open_clips(shards, config)
    plan = make_plan(shards, config)
    share = Share(world.rank, world.size, config.pieces, replace=True)
    plan.check_batches(share)

    trainer = Trainer(config, world, options.compiled, options.factories)
    epoch = step = total = 0
    if start.resumed is not None:
        start.resumed.check_continues(start.path, config, shards.sha256, shards.split)
        trainer.resume_from(start.resumed)
        epoch, step, total = start.resumed.epoch, start.resumed.step, start.resumed.total_steps
        if (epoch, step) != divmod(total, plan.steps_per_epoch):
            raise TrainingError(
                f"{start.path} cannot be resumed: step {step} of epoch {epoch} does not follow "
                f"{total} steps of {plan.steps_per_epoch} per epoch"
            )
    elif start.initial is not None:
        start.initial.check_initialises(start.path, config)
        trainer.init_from(start.initial)
    state = f"{shards.sha256} {config.digest} {total} {epoch} {step}"
    check_agreed(world, options.out, roots, state)
    if not start.has_statistics and world.first:
        # A second of some clips is not worth copies of their shards.
        uncached = open_sets(roots, options.split)
        fit_statistics(trainer.features, uncached, config.clip, config.seed)
    # Whatever each rank has read, all start from the same state.
    world.broadcast([*trainer.features.buffers(), *trainer.model.state_dict().values()])
    last_total = plan.steps_per_epoch * config.epochs
    if options.steps is not None:
        last_total = min(last_total, options.steps)
    workers = default_workers(world.device) if options.workers is None else options.workers
    return Run(config, shards, clips, plan, share, trainer, workers, epoch, step, total, last_total)


def check_early(roots: Roots, config: Config, options: RunOptions, world: World) -> None:
    """Raise TrainingError where `prepare` would, as far as that is known without networks."""
    config.check()
    check_precision(config.precision, world.device)
    shards = open_sets(roots, options.split, options.cache, options.cache_bytes)
    _find_own_checkpoint(options)
    open_clips(shards, config)
    plan = make_plan(shards, config)
    plan.check_batches(Share(world.rank, world.size, config.pieces))


def open_clips(shards: Shards, config: Config) -> Clips:
    """The clips that a run of ``config`` reads. Raises TrainingError and ShardError."""
    clip, sound, augment = config.clip, config.sound, config.augment
    return Clips(shards, clip, sound, augment, config.seed, shuffled=config.shuffle_views)


def make_plan(shards: Shards, config: Config) -> Plan:
    """Raises TrainingError where the weights are not those of these sets."""
    sets = len(sets_in(shards))
    if len(config.weights) not in (0, sets):
        raise TrainingError(f"there are {len(config.weights)} weights, but {sets} sets")
    return Plan(shards, config.seed, config.batch_size, config.clips_per_source, config.weights)


@dataclass(frozen=True)
class _Start:
    """The checkpoint in ``path`` that a run starts from: its own (``resumed``), that of another run
    (``initial``), or neither."""

    path: Path
    resumed: Checkpoint | None = None
    initial: Checkpoint | None = None

    def adapt(self, config: Config) -> Config:
        """The settings with what the checkpoint decides: its conventions, and which run the
        networks are from."""
        checkpoint = self.resumed or self.initial
        if checkpoint is None:
            return config
        config = _take_conventions(checkpoint, config)
        earlier = checkpoint.settings()
        if self.resumed is not None:
            return replace(config, begun_with=earlier.begun_with)
        return config.initialised_from(earlier, checkpoint.total_steps)

    @property
    def has_statistics(self) -> bool:
        """Whether mean and std of the log-mels come with the checkpoint."""
        return self.resumed is not None or (
            self.initial is not None and bool(self.initial.features)
        )


def _find_start(options: RunOptions) -> _Start:
    own = options.out / CHECKPOINT
    resumed = _find_own_checkpoint(options)
    if resumed is not None or options.init_from is None:
        return _Start(own, resumed=resumed)
    return _Start(options.init_from, initial=Checkpoint.load(options.init_from))


def _find_own_checkpoint(options: RunOptions) -> Checkpoint | None:
    """The checkpoint to resume from; None for a run that was killed before its first one.

    Raises TrainingError for a run that exists already, without ``resume``.
    """
    if options.resume:
        path = options.out / CHECKPOINT
        return Checkpoint.load(path) if path.exists() else None
    for name in (CHECKPOINT, LOG, CONFIG):
        if (options.out / name).exists():
            raise TrainingError(
                f"{options.out} holds a run already; continue it with --resume, or choose another "
                "--out"
            )
    return None


def _take_conventions(checkpoint: Checkpoint, config: Config) -> Config:
    """Conventions belong to the weights: those of the checkpoint that a run starts from."""
    conventions = checkpoint.config["sound"].get("conventions")
    if conventions is None:
        return config
    try:
        return replace(config, sound=replace(config.sound, conventions=conventions))
    except ValueError as error:
        raise TrainingError(str(error)) from None
