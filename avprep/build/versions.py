"""The versions that make a set, and what is said of a set that several make."""

from __future__ import annotations

import av

from avprep.media.find_ffmpeg import find_ffmpeg
from shards import __version__

_AND = " and "


def versions_now() -> dict[str, str]:
    """The versions of what turns recordings into samples. Raises UserError if no ffmpeg runs."""
    return {"avprep": __version__, "ffmpeg": find_ffmpeg().version, "av": av.__version__}


def joined_versions(before: dict[str, str], now: dict[str, str]) -> dict[str, str]:
    """The versions of a set that was begun with ``before`` and is continued with ``now``: both,
    such as "7.0.2 and 7.1", where they differ."""
    joined = dict(before)
    for name, versions in now.items():
        known = joined.get(name, versions).split(_AND)
        new = [version for version in versions.split(_AND) if version not in known]
        joined[name] = _AND.join([*known, *new])
    return joined


def describe_versions(place: object, before: dict[str, str], now: dict[str, str]) -> str | None:
    """A sentence if the set in ``place`` was begun with other versions than those that continue
    it; None if it was not."""
    joined = joined_versions(before, now)
    changes = [
        f"{name} {before[name]} before, {now[name]} now"
        for name, versions in joined.items()
        if versions != before.get(name, versions)
    ]
    if not changes:
        return None
    return (
        f"{place} is continued by other versions ({', '.join(changes)}); its clips may differ in "
        "the last digits, and its manifest names both"
    )
