"""Contrastive pretraining: settings, set-up, loop, log, save, from top to bottom."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from avtrain.checkpoint import Checkpoint
from avtrain.data import Clips, fit_statistics
from avtrain.device import default_workers, pick_device, rng_state, set_rng_state
from avtrain.errors import TrainingError
from avtrain.features import Features
from avtrain.loader import Plan, load
from avtrain.losses import Contrast, view_contrast
from avtrain.models import AudioVisual
from avtrain.plots import plot_curves
from avtrain.presets import Config, first_stage
from shards.files import dump_json, remove_temporary_files, write_atomic
from shards.reader import ShardSet

FIRST_STAGE = "avc"
CHECKPOINT, LOG, CONFIG, CURVES = "checkpoint.pt", "log.jsonl", "config.json", "curves.png"


@dataclass(frozen=True)
class RunOptions:
    """What a run may change from one start to the next. ``steps`` ends it early."""

    out: Path
    split: str = "train"
    init_from: Path | None = None
    resume: bool = False
    steps: int | None = None
    checkpoint_steps: int = 500
    device: str = "auto"
    workers: int | None = None


def pretrain(root: Path | str, config: Config, options: RunOptions) -> dict[str, Any]:
    """Train on the shard set in ``root`` and return the last line of the log."""
    # Set-up: data, networks, and the state of an earlier start.
    config.check()
    shards = ShardSet(root, options.split)
    plan = Plan(shards, config.seed, config.batch_size, config.clips_per_source)
    earlier = _earlier_start(options)
    start = None
    if earlier is None and options.init_from is not None:
        start = Checkpoint.load(options.init_from)
    config = _heard_as_before(config, earlier or start)
    clips = Clips(shards, config.clip, config.sound, config.augment, config.seed)
    plan.check_contrast()
    device = pick_device(options.device)
    workers = default_workers(device) if options.workers is None else options.workers

    torch.manual_seed(config.seed)
    features = Features(config.sound).to(device)
    model = AudioVisual(config.model).channels_last().to(device).train()
    optimiser = torch.optim.Adam(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    total = epoch = step = 0
    if earlier is not None:
        path = options.out / CHECKPOINT
        earlier.check_continues(path, config, shards.manifest.sha256, shards.split)
        model.load_state_dict(earlier.model)
        features.load_state_dict(earlier.features)
        optimiser.load_state_dict(earlier.optimiser)
        set_rng_state(earlier.rng, device)
        total, epoch, step = earlier.total_steps, earlier.epoch, earlier.step
    elif start is not None and options.init_from is not None:
        start.check_initialises(options.init_from, config)
        model.load_state_dict(start.model)
        features.load_state_dict(start.features or features.state_dict())
    if earlier is None and (start is None or not start.features):
        fit_statistics(features, shards, config.clip, config.seed)

    options.out.mkdir(parents=True, exist_ok=True)
    remove_temporary_files(options.out)
    write_atomic(options.out / CONFIG, dump_json(config.to_dict(), indent=2))
    log = _log_until(options.out / LOG, total)
    last_total = plan.steps_per_epoch * config.epochs
    if options.steps is not None:
        last_total = min(last_total, options.steps)
    _announce(config, shards, model, device, total, last_total)

    # The loop. A step is a function of (epoch, step), the weights and torch's generators.
    pinned = device.type == "cuda"
    batches = load(clips, plan, range(epoch, config.epochs), step, workers, pinned)
    began, clips_seen = time.monotonic(), 0
    bar = tqdm(
        islice(batches, max(0, last_total - total)),
        total=last_total,
        initial=total,
        unit="step",
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
    )
    with (options.out / LOG).open("a") as log_file:
        for place, batch in bar:
            batch = batch.to(device)
            pictures = batch.pictures(config.clip.size)
            sound = batch.features(features, batch.matrices)
            contrast = contrast_of(model, config, pictures, sound, batch.directions)
            loss = contrast.loss.item()
            if not torch.isfinite(contrast.loss):
                keys = ", ".join(shards.keys[index] for index in batch.index.tolist())
                raise TrainingError(
                    f"the loss of step {total + 1} is {loss}; its clips: {keys}. Nothing of this "
                    "step was saved; a lower --lr may help, or leaving out a damaged clip"
                )
            optimiser.zero_grad()
            contrast.loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()

            total += 1
            clips_seen += len(batch.index)
            line = {
                "step": total,
                "epoch": place.epoch,
                "loss": loss,
                "clip_accuracy": contrast.clip_accuracy.item(),
                "view_accuracy": _item(contrast.view_accuracy),
                "clips": len(batch.index),
                "clips_per_s": round(clips_seen / (time.monotonic() - began), 2),
            }
            log.append(line)
            log_file.write(json.dumps(line) + "\n")
            bar.set_postfix(_bar_texts(line), refresh=False)
            if place.last_of_epoch or total == last_total or total % options.checkpoint_steps == 0:
                log_file.flush()  # never behind the checkpoint, whose step it is cut to
                Checkpoint(
                    config=config.to_dict(),
                    data=shards.manifest.sha256,
                    split=shards.split,
                    epoch=place.epoch + place.last_of_epoch,
                    step=0 if place.last_of_epoch else place.step + 1,
                    total_steps=total,
                    model=model.state_dict(),
                    features=features.state_dict(),
                    optimiser=optimiser.state_dict(),
                    rng=rng_state(device),
                ).save(options.out / CHECKPOINT)

    if not log:
        raise TrainingError("there is no step to take; ask for at least one (--steps, --epochs)")
    plot_curves(log, config, options.out / CURVES)
    return log[-1]


def pretrain_in_stages(
    root: Path | str, config: Config, options: RunOptions, first_steps: int | None
) -> dict[str, Any]:
    """The curriculum: AVC in ``OUT/avc`` (``first_steps`` end it early), then ``config`` from its
    networks in ``OUT``. With ``resume`` it goes on in whichever stage was interrupted."""
    first_out = options.out / FIRST_STAGE
    if not (options.resume and (options.out / CHECKPOINT).exists()):
        first = replace(options, out=first_out, init_from=None, steps=first_steps)
        pretrain(root, first_stage(config), first)
    start = replace(options, init_from=first_out / CHECKPOINT)
    return pretrain(root, replace(config, curriculum=True), start)


def contrast_of(
    model: AudioVisual, config: Config, pictures: Tensor, sound: Tensor, directions: Tensor
) -> Contrast:
    """The task's loss, averaged over video from audio and audio from video.

    Inputs are those of a `Batch`. The views of a clip are predicted from each other's modality by
    the transformers; what has one view, or several moments, is compared as it is.
    """
    with torch.autocast(pictures.device.type, torch.bfloat16, enabled=config.bf16):
        video, audio = model.embed(pictures, sound)
    # Embeddings begin nearly alike: in 8 bits their differences are lost, and learning starts late.
    video, audio = video.float(), audio.float()
    wanted_video, wanted_audio = model.video_head(video), model.audio_head(audio)
    if config.across_views:
        from_video = model.predicted_audio_head(model.predict_audio(video, directions))
        from_audio = model.predicted_video_head(model.predict_video(audio, directions))
    else:
        from_video, from_audio = wanted_video, wanted_audio

    def compare(query: Tensor, target: Tensor) -> Contrast:
        return view_contrast(query, target, config.temperature, config.negatives)

    return compare(from_video, wanted_audio).mean(compare(from_audio, wanted_video))


def _heard_as_before(config: Config, start: Checkpoint | None) -> Config:
    """Conventions belong to the weights: those of the checkpoint that a run begins with."""
    conventions = None if start is None else start.config["sound"].get("conventions")
    if conventions is None:
        return config
    try:
        return replace(config, sound=replace(config.sound, conventions=conventions))
    except ValueError as error:
        raise TrainingError(str(error)) from None


def _earlier_start(options: RunOptions) -> Checkpoint | None:
    """The checkpoint to go on from. A run killed before its first one starts over."""
    if options.resume:
        path = options.out / CHECKPOINT
        return Checkpoint.load(path) if path.exists() else None
    for name in (CHECKPOINT, LOG, CONFIG):
        if (options.out / name).exists():
            raise TrainingError(
                f"{options.out} holds a run already; go on with --resume, or choose another --out"
            )
    return None


def _log_until(path: Path, total: int) -> list[dict[str, Any]]:
    """Cut the log to the steps before the start, and return them."""
    lines: list[dict[str, Any]] = []
    if path.exists():
        for text in path.read_text().splitlines()[:total]:
            lines.append(json.loads(text))
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
    return lines


def _announce(
    config: Config,
    shards: ShardSet,
    model: AudioVisual,
    device: torch.device,
    total: int,
    last_total: int,
) -> None:
    million = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(
        f"{config.task} with preset {config.preset}: {million:.2f} million parameters on {device}; "
        f"{len(shards)} clips of {len(set(shards.sources))} sources, "
        f"{config.batch_size} clips x {config.clip.views} views a step; "
        f"steps {total + 1} to {last_total}",
        file=sys.stderr,
    )


def _item(value: Tensor | None) -> float | None:
    return None if value is None else value.item()


def _bar_texts(line: dict[str, Any]) -> dict[str, str]:
    accuracy = line["clip_accuracy"] if line["view_accuracy"] is None else line["view_accuracy"]
    return {
        "loss": f"{line['loss']:.3f}",
        "accuracy": f"{accuracy:.1%}",
        "clips/s": f"{line['clips_per_s']:.1f}",
    }
