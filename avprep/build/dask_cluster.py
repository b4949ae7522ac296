"""Making shards on a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator

from avprep.build.make_shard import Failures, make_shard
from avprep.build.plan import ShardPlan
from avprep.build.workers import make_shards
from avprep.errors import UserError
from avprep.sample.options import ClipOptions
from avprep.workers import Advance, WorkerPool
from shards.folders import Folder

CONNECT_S = 20
"""Seconds that a scheduler has to answer."""


def make_shards_on_cluster(
    address: str,
    pool: WorkerPool,
    out: Folder,
    shards: list[ShardPlan],
    options: ClipOptions,
    advance: Advance,
) -> Iterator[Failures]:
    """Make shards, in any order; yields the failures of each. Raises UserError.

    The cluster's workers must see the same folders under the same paths. A shard that crashes
    several of them is made by ``pool``, where a crash loses one clip only.
    """
    try:
        from distributed import Client, as_completed
        from distributed.scheduler import KilledWorker
    except ModuleNotFoundError:
        raise UserError("--scheduler needs Dask; `pip install 'avsa360[dask]'`") from None

    try:
        client = Client(address, timeout=CONNECT_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UserError(
            f"no Dask scheduler answers at {address} ({error}); see --scheduler"
        ) from None
    with client:
        # If a worker dies, another one makes its shard.
        futures = {
            client.submit(
                _make_on_cluster, out.absolute(), shard, options, pure=False, retries=2
            ): shard
            for shard in shards
        }
        for future in as_completed(futures):  # type: ignore[no-untyped-call]
            shard = futures[future]
            try:
                yield future.result()
                advance(len(shard.clips))
            except KilledWorker:
                yield from make_shards(pool, out, [shard], options, advance)


def _make_on_cluster(out: Folder, shard: ShardPlan, options: ClipOptions) -> Failures:
    return make_shard(out, shard, options, lambda _: None)
