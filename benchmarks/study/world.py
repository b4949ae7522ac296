"""The generated world of a study, in words and numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from avprep.world.hard import NOISE_DB
from avprep.world.scene import CLIPS_PER_PLACE, DURATION_S, VARIATION
from avtrain.evals.tables import markdown

_VARIED = {
    "hue_deg": "hue, degrees from the kind's",
    "radius_deg": "radius, degrees",
    "brightness": "brightness",
    "aspect": "aspect",
    "semitones": "pitch, semitones from the kind's",
    "tempo": "tempo, factor",
    "timbre": "timbre",
    "noise_db": "diffuse noise, dB against a source at 0 dB",
    "reverb_db": "diffuse tail, dB against the direct sound",
}


def describe_world(world: Path) -> str:
    """The constants that the world is drawn from, and the contents of the clips in the folder."""
    unnamed = {item.name for item in fields(VARIATION["train"])} - _VARIED.keys()
    if unnamed:
        raise ValueError(f"the page has no title for {', '.join(sorted(unnamed))}")
    truths = [json.loads(path.read_bytes()) for path in sorted((world / "truth").glob("*.json"))]
    # In rooms where loudness depends on distance, the tail follows from it.
    near = any("distance_m" in item for truth in truths[:1] for item in truth["objects"])
    ranges = {
        name: {split: getattr(VARIATION[split], name) for split in ("train", "test")}
        for name in _VARIED
        if not (near and name == "reverb_db")
    }
    if near:
        ranges["noise_db"] = NOISE_DB
    varied = [
        {"": _VARIED[name], **{split: _range(ends) for split, ends in by_split.items()}}
        for name, by_split in ranges.items()
    ]
    kinds = {item["kind"] for truth in truths for item in truth["objects"]}
    intro = (
        f"Clips of {DURATION_S:g} s, {CLIPS_PER_PLACE} from each place; {len(kinds)} kinds of "
        "objects. The test places are never trained on, and their objects are drawn from other "
        "ranges:"
    )
    counted = _counted(truths) if truths else "The recordings of the study are no longer there."
    return f"{intro}\n\n{markdown(varied)}\n\n{counted}"


def _counted(truths: Sequence[dict[str, Any]]) -> str:
    splits = sorted({truth["split"] for truth in truths}, reverse=True)
    columns = {
        split: _world_numbers([t for t in truths if t["split"] == split]) for split in splits
    }
    rows = [
        {"": name, **{split: columns[split][name] for split in splits}}
        for name in columns[splits[0]]
    ]
    return f"The clips of this study:\n\n{markdown(rows)}"


def _world_numbers(truths: Sequence[dict[str, Any]]) -> dict[str, str]:
    sounding, silent, look_alike, unseen, repeated, above_noise = [], [], [], [], [], []
    for truth in truths:
        audible = [item for item in truth["objects"] if not item["silent"]]
        mute = [item for item in truth["objects"] if item["silent"]]
        kinds = [item["kind"] for item in audible]
        sounding.append(len(audible))
        silent.append(len(mute))
        look_alike.append(any(item["kind"] in kinds for item in mute))
        repeated.append(len(set(kinds)) < len(kinds))
        unseen.append(any(not item["visible"] for item in audible))
        noise = truth["diffuse_noise_dbfs"]
        above_noise += [max(item["level_dbfs"]) - noise for item in audible]
    heard = [item for truth in truths for item in truth["objects"] if not item["silent"]]
    distances = [item["distance_m"][0] for item in heard if "distance_m" in item]
    direct = [item["direct_to_reverberant_db"] for item in heard if "distance_m" in item]
    moving = [item["azimuth_deg"][0] != item["azimuth_deg"][-1] for item in heard]
    tails = [truth["reverberation_db"] for truth in truths]
    times = [truth["reverberation_rt60_s"] for truth in truths]
    counts = f"{np.mean(sounding):.2f} ({min(sounding)} to {max(sounding)})"
    return {
        "clips": str(len(truths)),
        "places": str(len({truth["source"] for truth in truths})),
        "sounding objects per clip": counts,
        "silent objects per clip": f"{np.mean(silent):.2f} ({min(silent)} to {max(silent)})",
        "clips with a silent look-alike of a sounding object": f"{np.mean(look_alike):.0%}",
        "clips with several sounding objects of one kind": f"{np.mean(repeated):.0%}",
        "clips with a sounding object that is not in the picture": f"{np.mean(unseen):.0%}",
        "loudest moment of an object above the diffuse noise, dB (quartiles)": _quartiles(
            above_noise
        ),
        f"diffuse tail against the direct sound{' at 1 m' * bool(distances)}, dB (quartiles)": (
            _quartiles(tails)
        ),
        "reverberation time, s (quartiles)": _quartiles(times, 2),
        "sounding objects that move": f"{np.mean(moving):.0%}",
        **(
            {
                "distance, m (quartiles)": _quartiles(distances, 1),
                "direct sound against the tail, dB (quartiles)": _quartiles(direct),
            }
            if distances
            else {}
        ),
    }


def _quartiles(values: Sequence[float], digits: int = 0) -> str:
    return " / ".join(f"{value:.{digits}f}" for value in np.percentile(values, [25, 50, 75]))


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:g} to {ends[1]:g}"
