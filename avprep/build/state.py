"""The state of an unfinished build, which its output folder holds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import msgspec

from avprep.build.plan import BuildPlan
from avprep.errors import UserError
from avprep.recordings.recording import Failure
from shards.files import dump_json, parse_json
from shards.folders import Folder
from shards.manifest import MANIFEST_NAME, read_manifest
from shards.schema import Manifest, Options, check_shard_names

STATE_NAME = ".build.json"
"""Exists while a build is unfinished."""
STATE_BYTES = 128_000_000
"""More than a million shards."""
_MOST_DIFFERENCES = 6
_MOST_SHOWN = 60


@dataclass(frozen=True)
class Extended:
    """The finished set that a build extends: SHA-256 of its manifest, its plan, and the number of
    lines in its ``dropped.jsonl``."""

    manifest: str
    plan: str
    dropped: Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True)
class BuildState:
    """An unfinished build: the ``plan``'s digest, the options and versions, all shards as
    (split, tar, index), the recordings that failed before a shard, the number of clips that
    no split list names, and the set that it extends, if there is one.

    ``version`` is that of this record: 0 did not say what is extended.
    """

    plan: str
    options: Options
    versions: dict[str, Annotated[str, msgspec.Meta(max_length=1000)]]
    shards: tuple[tuple[str, str, str], ...]
    failures: tuple[Failure, ...]
    unlisted: Annotated[int, msgspec.Meta(ge=0)]
    extends: Extended | None = None
    version: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0

    def __post_init__(self) -> None:
        for split, file, index in self.shards:
            check_shard_names(split, file, index)

    @classmethod
    def from_plan(
        cls,
        plan: BuildPlan,
        options: dict[str, Any],
        versions: dict[str, str],
        extends: Extended | None,
    ) -> BuildState:
        shards = tuple((shard.split, shard.file, shard.index) for shard in plan.shards)
        unlisted, failures = plan.unlisted, plan.failures
        return cls(plan.digest, options, versions, shards, failures, unlisted, extends, version=1)

    @property
    def finished_plan(self) -> str:
        """The plan in the manifest of the finished set."""
        if self.extends is None:
            return self.plan
        return hashlib.sha256(f"{self.extends.plan} {self.plan}".encode()).hexdigest()

    def write(self, out: Folder) -> None:
        out.write(STATE_NAME, dump_json(asdict(self), indent=1))

    @classmethod
    def read(cls, out: Folder) -> BuildState | None:
        """The unfinished build in ``out``; None if there is none. Raises UserError."""
        path = out.path(STATE_NAME)
        try:
            content = out.read(STATE_NAME, STATE_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from None
        try:
            return parse_json(content, cls)
        except ValueError as error:
            raise UserError(
                f"{path} is damaged ({error}); delete {out} or choose another --out"
            ) from None


def manifest_there(out: Folder) -> Manifest | None:
    """The manifest in the folder of a build; None while there is none. Raises ShardError."""
    return read_manifest(out) if MANIFEST_NAME in out.files() else None


def is_begun_from(state: BuildState, manifest: Manifest | None) -> bool:
    """Whether the manifest is the one that a build extends (None: it extends none)."""
    if manifest is None or state.extends is None:
        return manifest is None and state.extends is None
    return manifest.sha256 == state.extends.manifest


def describe_differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The options that differ, with both values, in words; empty if none do."""
    old, new = _flatten(old), _flatten(json.loads(dump_json(new)))
    differences = [
        f"{name:.{_MOST_SHOWN}} {old.get(name)!r:.{_MOST_SHOWN}} there, "
        f"{new.get(name)!r:.{_MOST_SHOWN}} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    more = differences[_MOST_DIFFERENCES:]
    shown = differences[:_MOST_DIFFERENCES] + ([f"{len(more)} more"] if more else [])
    return "; ".join(shown)


def _flatten(options: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat.update(_flatten(value) if isinstance(value, dict) else {name: value})
    return flat
