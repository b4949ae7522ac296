"""Several processes (ranks) that train the same networks, as torchrun starts them.

A run does not depend on their number: every rank embeds its part of a global batch, then computes
the loss of the whole batch from the features of all ranks. Batch normalisation is over the global
batch. So the gradients are those of one process, except for rounding.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import inspect
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from avtrain.errors import TrainingError
from avtrain.runtime.device import pick_device
from avtrain.runtime.signals import Stopped, ignore_signals

TIMEOUT = timedelta(minutes=10)
"""A rank that waits longer for another one ends the run."""


def restarts() -> int:
    """Number of times that torchrun has restarted this run because a process died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@dataclass(frozen=True)
class World:
    """The processes of a run: this one is number ``rank`` of ``size``. ``grouped``: they are a
    group of `torch.distributed`, which a single process need not be."""

    device: torch.device
    rank: int = 0
    size: int = 1
    grouped: bool = False

    @classmethod
    def join(cls, device: str, always: bool = False) -> World:
        """Join the other processes if torchrun has started several. With ``always``, a single one
        joins a group of its own, and does all that several do: to try their communication.

        Each has a GPU of its own, or all compute on CPUs.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1 and not always:
            return cls(pick_device(device))
        chosen = pick_device(device)
        if chosen.type == "cuda":
            local = int(os.environ.get("LOCAL_RANK", "0"))
            if local >= torch.cuda.device_count():
                raise TrainingError(
                    f"process {local} of this machine has no GPU: there are "
                    f"{torch.cuda.device_count()}; start that number with --nproc-per-node"
                )
            chosen = torch.device("cuda", local)
            torch.cuda.set_device(chosen)
        # If imported later, as PyTorch itself does, it keeps the group and its threads alive, and a
        # thread that ends its work while the interpreter shuts down aborts the process.
        importlib.import_module("torch._dynamo")
        try:
            store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
            # torchrun keeps the store over restarts, with the addresses of dead processes in it.
            store = PrefixStore(_agree_on_prefix(store, rank, size), store)
            backend = "nccl" if chosen.type == "cuda" else "gloo"
            dist.init_process_group(
                backend, timeout=TIMEOUT, store=store, rank=rank, world_size=size
            )
        except (RuntimeError, ValueError) as error:
            raise TrainingError(f"the processes did not meet: {error}") from None
        return cls(chosen, dist.get_rank(), dist.get_world_size(), grouped=True)

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The same module, with gradients averaged over all ranks."""
        if not self.grouped:
            return module
        # Buffers are equal on all ranks, since batch statistics are over the global batch.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {name: False}  # PyTorch 2.13 renamed it
        return DistributedDataParallel(module, **options)

    def gather(self, part: Tensor) -> Tensor:
        """Concatenate the parts of all ranks: (n, …) to (N, …).

        All ranks must compute the same from the result, so that each knows the whole gradient of
        its part. That gradient is multiplied by the number of ranks, since averaging divides by it.
        """
        if not self.grouped:
            return part
        gathered: Tensor = _Gather.apply(part, self)  # type: ignore[no-untyped-call]
        return gathered

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """For each flag, whether it is set on any rank."""
        if not self.grouped:
            return list(flags)
        counts = torch.tensor(flags, dtype=torch.int32, device=self.device)
        dist.all_reduce(counts)
        return [count > 0 for count in counts.tolist()]

    def agree(self, text: str) -> bool:
        """Whether ``text`` is the same on all ranks."""
        if not self.grouped:
            return True
        number = int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)
        ends = torch.tensor([number, -number], device=self.device)
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        return bool(ends.sum() == 0)

    def broadcast(self, values: Iterable[Tensor]) -> None:
        """Set tensors to those of the first rank."""
        if self.grouped:
            for value in values:
                dist.broadcast(value, src=0)


@contextmanager
def joined(device: str, always: bool = False) -> Iterator[World]:
    """The processes of this run, joined for the duration of the block.

    Raises TrainingError if others are lost.
    """
    world = World.join(device, always)
    ended = False
    try:
        yield world
        ended = True
    except Stopped:
        ended = True
        raise
    except RuntimeError as error:
        if not world.grouped or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        ignore_signals()  # the launcher ends the remaining processes: not before this message
        raise TrainingError(
            f"process {world.rank} of {world.size} has lost the others, so the job ends; the "
            "message of the first process that ended tells why "
            f"({str(error).strip().splitlines()[0]:.120})"
        ) from None
    finally:
        # After an error NCCL would wait for operations that this process owes the others, and they
        # for it: the error could not be reported.
        if world.grouped and (ended or world.device.type == "cpu"):
            gc.collect()  # objects that still hold the group, so that its threads end here
            dist.destroy_process_group()


def _agree_on_prefix(store: Store, rank: int, size: int) -> str:
    """A prefix that the present processes agree on, in a store that may still hold everything of
    earlier ones. Rank 0 invents it. Every other rank writes a random word of its own; rank 0
    answers each word with the prefix, until all ranks have repeated the prefix."""
    own, polled_s = secrets.token_hex(8), 0.05
    deadline = time.monotonic() + TIMEOUT.total_seconds()

    def read(key: str) -> str:
        return store.get(key).decode() if store.check([key]) else ""

    if rank:
        store.set(f"meeting/word/{rank}", own)
    repeated: set[int] = {0}
    while time.monotonic() < deadline:
        if rank:
            word, _, name = read(f"meeting/name/{rank}").partition(" ")
            if word == own:
                store.set(f"meeting/repeated/{rank}", name)
                return name
        else:
            for other in set(range(1, size)) - repeated:
                if read(f"meeting/repeated/{other}") == own:
                    repeated.add(other)
                else:
                    store.set(f"meeting/name/{other}", f"{read(f'meeting/word/{other}')} {own}")
            if len(repeated) == size:
                return own
        time.sleep(polled_s)
    lacking = sorted(set(range(size)) - repeated) if rank == 0 else [0]
    raise TrainingError(f"the processes did not meet: no answer from {lacking}")


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, world: World) -> Tensor:
        sizes = torch.zeros(world.size, dtype=torch.int64, device=part.device)
        sizes[world.rank] = len(part)
        dist.all_reduce(sizes)
        counts = sizes.tolist()
        # all_gather needs parts of one size.
        padded = part.new_zeros(max(counts), *part.shape[1:])
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        ctx.start, ctx.count, ctx.size = sum(counts[: world.rank]), len(part), world.size
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][ctx.start : ctx.start + ctx.count] * ctx.size, None


class _Sum(torch.autograd.Function):
    """The sum over all ranks; its gradient is such a sum too, since each rank computes a part."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class GlobalBatchNorm(nn.BatchNorm3d):
    """Batch normalisation over the batches of all ranks, in two passes as in one process; for CPUs,
    where PyTorch has none."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (N, C, …), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        over = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        count = torch.tensor(float(x.numel() // x.shape[1]), dtype=x.dtype, device=x.device)
        dist.all_reduce(count)
        mean = _sum(x.sum(over)) / count
        centred = x - mean.view(shape)
        variance = _sum(centred.square().sum(over)) / count
        if self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                momentum = 0.1 if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * (count / (count - 1)), momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)


def _sum(value: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total


def make_batch_norm_global(module: nn.Module, world: World) -> None:
    """Make all batch normalisation in ``module`` global; weights and names stay."""
    if not world.grouped:
        return
    if world.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            norm = GlobalBatchNorm(child.num_features, child.eps, child.momentum)
            norm.load_state_dict(child.state_dict())
            setattr(module, name, norm.train(child.training))
        else:
            make_batch_norm_global(child, world)
