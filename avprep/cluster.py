"""Making shards on a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator

from avprep.clips import ClipOptions
from avprep.errors import UserError
from avprep.executors import Advance, Failures, make_shard
from avprep.plan import ShardPlan
from shards.places import Folder


class DaskWorkers:
    """Workers of a Dask cluster, which see the same folders under the same paths."""

    def __init__(self, address: str) -> None:
        self._address = address

    def make(
        self, out: Folder, shards: list[ShardPlan], options: ClipOptions, advance: Advance
    ) -> Iterator[Failures]:
        """Make shards, in any order; yields the failures of each. Raises UserError."""
        try:
            from distributed import Client, as_completed
            from distributed.scheduler import KilledWorker
        except ModuleNotFoundError:
            raise UserError("--scheduler needs Dask; `pip install 'avsa360[dask]'`") from None

        try:
            client = Client(self._address, timeout="20s")  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise UserError(
                f"no Dask scheduler answers at {self._address} ({error}); see --scheduler"
            ) from None
        with client:
            # A worker that dies loses nothing but time: its shard is made by another one.
            futures = {
                client.submit(
                    _make_on_cluster, out.absolute(), shard, options, pure=False, retries=2
                ): shard
                for shard in shards
            }
            try:
                for future in as_completed(futures):  # type: ignore[no-untyped-call]
                    yield future.result()
                    advance(len(futures[future].clips))
            except KilledWorker as error:
                raise UserError(
                    f"Dask workers died again and again ({error}); finished shards are kept: give "
                    "them more memory and run the same command again"
                ) from None


def _make_on_cluster(out: Folder, shard: ShardPlan, options: ClipOptions) -> Failures:
    return make_shard(out, shard, options, lambda _: None)
