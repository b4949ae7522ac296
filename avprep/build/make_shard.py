"""Making one shard, clip by clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import PurePosixPath

from avprep.build.plan import ShardPlan
from avprep.errors import ClipError, UserError, in_a_sentence
from avprep.processes import Starting
from avprep.recordings.recording import Failure
from avprep.sample.options import ClipOptions
from shards.folders import Folder
from shards.writer import open_shard

Failures = tuple[Failure, ...]


def make_shard(
    out: Folder,
    shard: ShardPlan,
    options: ClipOptions,
    starting: Starting,
    fatal: Mapping[str, str] | None = None,
) -> Failures:
    """Make one shard; returns what of its clips did not go in.

    ``starting`` is called with the number of each clip before it is made, and with how many there
    are and None at the end; clips whose keys are in ``fatal`` are left out for the reasons there.
    """
    from avprep.sample.make_sample import (
        make_sample,  # what decodes and encodes; planning does without
    )
    from avprep.sample.thresholds import DroppedError

    failures: list[Failure] = []
    out.delete_partial(shard.split, PurePosixPath(shard.file).name)  # of a process that was killed
    with open_shard(out, shard.file, shard.index) as writer:
        for number, clip in enumerate(shard.clips):
            starting(number)
            try:
                if fatal is not None and clip.key in fatal:
                    raise ClipError(fatal[clip.key])
                sample = make_sample(clip, options)
            except UserError:
                raise
            except DroppedError as error:
                dropped = {"key": clip.key, "source": clip.source, "file": clip.file}
                why = {"start_s": clip.start_s, **error.numbers, "reason": str(error)}
                writer.add_dropped(dropped | why)
            except Exception as error:
                # Whatever a broken file provokes in a decoder costs this clip alone.
                failure = Failure(clip.source, "clip", f"{clip.file}: {in_a_sentence(error)}")
                writer.add_failure(asdict(failure))
                failures.append(failure)
            else:
                writer.add(*sample)
        starting(len(shard.clips))
        starting(None)  # disks may be slow
    return tuple(failures)
