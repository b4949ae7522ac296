"""Making one shard, clip by clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import PurePosixPath

from avprep.build.plan import ShardPlan
from avprep.errors import ClipError, UserError, one_sentence
from avprep.processes import ReportStep
from avprep.recordings.clips import Clip
from avprep.recordings.recording import Failure
from avprep.sample.options import ClipOptions
from shards.folders import Folder
from shards.writer import open_shard

Failures = tuple[Failure, ...]


def make_shard(
    out: Folder,
    shard: ShardPlan,
    options: ClipOptions,
    report_step: ReportStep,
    fatal: Mapping[str, str] | None = None,
) -> Failures:
    """Make one shard; returns the clips that failed.

    ``report_step`` is called with the number of each clip before it is made, and at the end with
    the number of clips and with None. ``fatal`` maps keys of clips to leave out to the reasons.
    """
    # Planning does without the packages that decode and encode.
    from avprep.sample.make_sample import make_sample
    from avprep.sample.thresholds import DroppedError

    failures: list[Failure] = []
    out.delete_partial(shard.split, PurePosixPath(shard.file).name)  # left by a killed process
    with open_shard(out, shard.file, shard.index) as writer:
        for number, clip in enumerate(shard.clips):
            report_step(number)
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
                # Any exception that a broken file causes in a decoder loses this clip only.
                failure = Failure(clip.source, "clip", _reason(clip, one_sentence(error)))
                writer.add_failure(asdict(failure))
                failures.append(failure)
            else:
                writer.add(*sample)
        report_step(len(shard.clips))
        report_step(None)  # closing the files has no time limit: disks may be slow
    return tuple(failures)


def _reason(clip: Clip, sentence: str) -> str:
    """A failure's reason, which names the clip's file in any case."""
    is_named = clip.video.name in sentence or clip.audio.name in sentence
    return sentence if is_named else f"{clip.file}: {sentence}"
