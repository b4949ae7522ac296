"""A training step against the published code: its loss, and its whole step.

    python benchmarks/step.py CHECKOUT [--device cpu|cuda] [--rounds 5] [--clips N]
        [--skip loss|step]

CHECKOUT is the user's own copy of the code that the paper's authors published as
AVSpatialAlignment. The loss (easy and hard candidates, forward and backward, one thread on a CPU)
is timed for growing batches, each in a process of its own whose memory is measured. Both sides get
the same embeddings; compare the printed losses. The step is that of preset `paper`: networks,
transformers, loss, gradients, Adam. On a GPU our step also runs in bfloat16 and compiled, and the
rate of its convolutions is compared with that of a large bfloat16 matrix product. All numbers are
medians over rounds; the sides take turns.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtrain.config import Config, paper
from avtrain.networks.losses import info_nce
from avtrain.pretrain.trainer import Trainer
from avtrain.runtime.distributed import World

BATCHES, VIEWS, EMBEDDING = (28, 112, 448), 4, 128


def timed(call: Callable[[], object], device: torch.device, times: int = 1) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(times):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / times


def published_loss(checkout: Path) -> Callable[[Tensor, Tensor], Tensor]:
    sys.path.insert(0, str(checkout))
    from criterions.video2audio_seq import Video2AudioSeq  # type: ignore[import-not-found]

    criterion = Video2AudioSeq(use_seq2seq_transformer=False, loss="easy+hard")
    return lambda query, target: criterion.contrastive_joint_loss(query, target)[0]


def our_loss(query: Tensor, target: Tensor) -> Tensor:
    return info_nce(query, target).value


def one_loss(checkout: Path, who: str, clips: int, device: torch.device) -> dict[str, float]:
    """Seconds of forward and backward, megabytes beyond the inputs, and the loss."""
    torch.set_num_threads(1)
    loss = our_loss if who == "ours" else published_loss(checkout)
    random = torch.Generator().manual_seed(0)
    query, target = (
        torch.randn(clips, VIEWS, EMBEDDING, generator=random).to(device).requires_grad_()
        for _ in range(2)
    )
    small = torch.randn(2, VIEWS, EMBEDDING, device=device, requires_grad=True)
    loss(small, small).backward()  # type: ignore[no-untyped-call]
    before = _memory(device)
    values: list[Tensor] = []

    def step() -> None:
        values.append(loss(query, target))
        values[-1].backward()  # type: ignore[no-untyped-call]

    first = timed(step, device)
    used = _memory(device) - before
    seconds = timed(step, device, times=max(1, int(1 / max(first, 1e-3))))
    return {"seconds": seconds, "megabytes": used / 1e6, "loss": values[0].item()}


def _memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def losses(checkout: Path, device: str, rounds: int) -> None:
    print("| clips | ours, ms | published, ms | ratio | ours, MB | published, MB | losses |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for clips in BATCHES:
        measured: dict[str, list[dict[str, float]]] = {"ours": [], "published": []}
        for _ in range(rounds):
            for who, results in measured.items():
                command = [sys.executable, __file__, str(checkout), "--device", device]
                command += ["--one-loss", who, "--clips", str(clips)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                results.append(json.loads(done.stdout))
        ours, theirs = (
            {name: statistics.median(one[name] for one in results) for name in results[0]}
            for results in measured.values()
        )
        print(
            f"| {clips} | {1e3 * ours['seconds']:.2f} | {1e3 * theirs['seconds']:.1f} "
            f"| {theirs['seconds'] / ours['seconds']:.0f} | {ours['megabytes']:.0f} "
            f"| {theirs['megabytes']:.0f} | {ours['loss']:.5f}, {theirs['loss']:.5f} |"
        )


def published_step(checkout: Path, device: torch.device) -> Callable[..., object]:
    """One step of the published networks, transformers and loss, with Adam."""
    from benchmarks.published_outputs import _theirs

    sys.path.insert(0, str(checkout))
    model, criterion = (part.to(device).train() for part in _theirs(checkout, "avsa"))
    optimiser = torch.optim.Adam([*model.parameters(), *criterion.parameters()], 1e-4)

    def step(video: Tensor, audio: Tensor, directions: Tensor) -> None:
        clips, views = video.shape[:2]
        features = model(video.flatten(0, 1), audio.flatten(0, 1))
        loss, _ = criterion(*(part.view(clips, views, -1) for part in features), directions)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def our_step(config: Config, device: torch.device, compiled: bool) -> Callable[..., object]:
    trainer = Trainer(config, World(device), compiled)

    def step(*inputs: Tensor) -> None:
        trainer.backward_and_step(trainer.objective(*inputs), last=True)

    return step


def steps(checkout: Path, device: torch.device, rounds: int, clips: int) -> None:
    config = replace(paper("avsa"), batch_size=clips)
    inputs = (
        torch.randn(clips, VIEWS, 3, 8, 112, 112, device=device),
        torch.randn(clips, VIEWS, 4, 100, 128, device=device),
        torch.zeros(clips, VIEWS, 3, device=device),
    )
    kinds = {"published": published_step(checkout, device), "ours": our_step(config, device, False)}
    if device.type == "cuda":
        half = replace(config, precision="bf16")
        kinds |= {"ours, bf16": our_step(half, device, False)}
        kinds |= {"ours, bf16, compiled": our_step(half, device, True)}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(rounds + 2):
        for name, step in kinds.items():
            took = timed(lambda step=step: step(*inputs), device)  # type: ignore[misc]
            if number > 1:
                seconds[name].append(took)
    print("| step | clips per second | ratio |\n| --- | --- | --- |")
    first = statistics.median(seconds["published"])
    for name, values in seconds.items():
        took = statistics.median(values)
        print(f"| {name} | {clips / took:.2f} | {first / took:.2f} |")
    if device.type == "cuda":
        rate = matrix_rate(device)
        used = (
            3 * forward_flops(config, inputs) / statistics.median(seconds["ours, bf16, compiled"])
        )
        print(
            f"\nbfloat16 matrix product: {rate / 1e12:.0f} TFLOP/s; the step's convolutions and "
            f"products: {used / 1e12:.0f} TFLOP/s, {used / rate:.0%} of it"
        )


def matrix_rate(device: torch.device) -> float:
    """Operations per second of a large bfloat16 matrix product."""
    size = 8192
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    timed(lambda: a @ b, device, 5)
    return 2 * size**3 / timed(lambda: a @ b, device, 20)


def forward_flops(config: Config, inputs: tuple[Tensor, ...]) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    trainer = Trainer(config, World(inputs[0].device))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        trainer.objective(*inputs)
    return float(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, help="clips per step  [default: 2 on a CPU, 28]")
    parser.add_argument("--skip", default="", help="loss or step")
    parser.add_argument("--one-loss", choices=["ours", "published"], help=argparse.SUPPRESS)
    arguments: Any = parser.parse_args()
    checkout, device = arguments.checkout.absolute(), torch.device(arguments.device)
    if arguments.one_loss:
        print(json.dumps(one_loss(checkout, arguments.one_loss, arguments.clips, device)))
        return
    if "loss" not in arguments.skip:
        losses(checkout, arguments.device, arguments.rounds)
    if "step" not in arguments.skip:
        clips = arguments.clips or (2 if arguments.device == "cpu" else 28)
        steps(checkout, device, arguments.rounds, clips)


if __name__ == "__main__":
    main()
