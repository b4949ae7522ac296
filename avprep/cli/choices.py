"""Choices and defaults that several commands share."""

from __future__ import annotations

import os

import click

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


def cores() -> int:
    """Number of cores that this process may use; on a cluster, fewer than the node has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
