"""Choices and defaults that several commands share."""

from __future__ import annotations

import math
import os
from typing import Any

import click

WORKERS = click.IntRange(1, 4096)
TRACK = click.IntRange(0, 65_535)
SEED = click.IntRange(0, 2**63 - 1)
FOA_CONVENTIONS = click.Choice(("auto", "ambix", "fuma", "n3d", "youtube"))
LAYOUTS = click.Choice(
    (
        *("auto", "folder", "yt360", "sphere360", "yt-ambigen", "starss", "yt-dlp"),
        *("ucf101", "hmdb51", "kinetics"),
    )
)
PROJECTIONS = click.Choice(
    (
        *("auto", "equirect", "half-equirect", "eac", "cube3x2", "cube6x1", "fisheye"),
        "dual-fisheye",
    )
)
STEREO_MODES = click.Choice(
    ("auto", "mono", "top-bottom", "left-right", "bottom-top", "right-left")
)


class Number(click.FloatRange):
    """A number in a range that has both ends; NaN, which click's own type takes, is in none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


def cores() -> int:
    """Number of cores that this process may use; on a cluster, fewer than the node has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
