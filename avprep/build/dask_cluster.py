"""Making shards on a Dask cluster."""

from __future__ import annotations

import concurrent.futures
from asyncio import CancelledError
from collections.abc import Iterator

from avprep.build.make_shard import Failures, make_shard
from avprep.build.plan import ShardPlan
from avprep.build.state import BuildState
from avprep.build.workers import make_shards
from avprep.errors import UserError
from avprep.sample.options import ClipOptions
from avprep.workers import Advance, WorkerPool
from shards.folders import Folder

CONNECT_S = 20
"""Seconds that a scheduler has to answer."""


def make_shards_on_cluster(
    address: str,
    plan: str,
    pool: WorkerPool,
    out: Folder,
    shards: list[ShardPlan],
    options: ClipOptions,
    advance: Advance,
) -> Iterator[Failures]:
    """Make shards, in any order; yields the failures of each. Raises UserError.

    The cluster's workers must see the same folders under the same paths. A shard that crashes
    several of them is made by ``pool``, where a crash loses one clip only. Workers outlive a build
    that is killed: they write nothing once the folder is no longer that of the build of ``plan``.
    """
    try:
        import distributed.client
        from distributed import Client, as_completed
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker
    except ModuleNotFoundError:
        raise UserError("--scheduler needs Dask; `pip install 'avsa360[dask]'`") from None

    distributed.client.logger.setLevel("CRITICAL")  # what matters is raised
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
                _make_on_cluster, out.absolute(), plan, shard, options, pure=False, retries=2
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
            except ImportError as error:
                raise UserError(
                    f"the Dask workers at {address} cannot make shards ({error}); install the same "
                    "packages there as here"
                ) from None
            except (CommClosedError, CancelledError, concurrent.futures.CancelledError):
                raise UserError(
                    f"the Dask scheduler at {address} is gone; finished shards are kept: run the "
                    "same command again when it runs"
                ) from None


def _make_on_cluster(out: Folder, plan: str, shard: ShardPlan, options: ClipOptions) -> Failures:
    def check_build(_: int | None) -> None:
        state = BuildState.read(out)
        if state is None or state.plan != plan:
            raise UserError(f"the build in {out} has ended, or another one has begun there")

    return make_shard(out, shard, options, check_build)
