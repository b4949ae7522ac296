"""The dataset card of a shard set: what the Hub shows, and what `datasets` reads columns by."""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

import yaml

from avprep.errors import UserError
from avprep.look.info import describe_set, size_in_words
from avprep.look.preview import draw_preview
from shards.errors import ShardError, printable
from shards.files import write_atomic
from shards.folders import LocalFolder, open_folder
from shards.geometry import ACN_CHANNELS
from shards.manifest import read_indices, read_manifest
from shards.reader import ShardSet
from shards.schema import LABEL_MAP_SUFFIX, Manifest, SampleInfo, ShardIndex

CARD, PICTURE = "README.md", "card.png"
BYTES = "bytes"
"""Name of the configuration whose crops and sounds are bytes as stored: `datasets` needs packages
for others, which are not there for every machine."""
_NOT_COLUMNS = ("source_format",)
"""Its members differ from recording to recording: no column holds them."""
_MOST_MAPS = 64
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))
_DTYPES = {str: "string", int: "int64", float: "float64", bool: "bool"}
_MEDIA = {"mp4": "video", "flac": "audio", "png": "image"}


class _Plain(yaml.SafeDumper):
    """YAML without references to what was written before."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_card(location: Path | str, out: Path | None) -> str:
    """Write the card of a set to ``out`` (by default README.md in its folder) and a picture of its
    first clip beside it. Returns a sentence.

    Raises UserError where there is a card already, and ShardError for a damaged set.
    """
    root = open_folder(location)
    if out is None:
        if not isinstance(root, LocalFolder):
            raise UserError(f"{root} is no folder of this machine; say with --out where to write")
        out = root.root / CARD
    if out.suffix.lower() == ".png":
        raise UserError(f"{out} would be the name of its picture: write the card to a file .md")
    picture = out.with_name(PICTURE) if out.name == CARD else out.with_suffix(".png")
    for path in (out, picture):
        if path.exists() or path.is_symlink():
            raise UserError(f"{path} exists, and may hold what its owner wrote; move it away first")
    described, manifest = describe_set(location), read_manifest(root)
    if damaged := [one for split in described["splits"].values() for one in split["damaged"]]:
        raise ShardError(damaged[0])
    indices = read_indices(root, [e.index for split in manifest.splits.values() for e in split])
    check_splits([*manifest.splits])
    channels = ShardSet(root, next(iter(manifest.splits))).info(0).audio.channels
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_preview(location, None, picture, None, 0.0)
    is_foa = channels == ACN_CHANNELS
    name = Path(str(root)).resolve().name if isinstance(root, LocalFolder) else str(root)
    text = _front_matter(manifest, indices, is_foa) + _text(
        name, picture.name, described, indices, is_foa
    )
    write_atomic(out, text.encode())
    return f"{out}: {sum(split['clips'] for split in described['splits'].values())} clips"


def check_splits(splits: Sequence[str]) -> None:
    """Raise UserError for names that `datasets` does not read."""
    for split in splits:
        same = [other for other in splits if split_name(other) == split_name(split)]
        if len(same) > 1:
            raise UserError(f"the splits {' and '.join(same)} have one name in `datasets`")
        if split == "all":
            raise UserError("a split of the name all means all splits in `datasets`")


def _front_matter(manifest: Manifest, indices: list[ShardIndex], is_foa: bool) -> str:
    """The card's head, as YAML: files and counts of each split, and the columns of all."""
    clips = sum(len(index.samples) for index in indices)
    size = next((name for most, name in _SIZES if clips < most), "n>1M")
    files = [{"split": split_name(split), "path": f"{split}/*.tar"} for split in manifest.splits]
    splits = [
        {
            "name": split_name(split),
            "num_bytes": sum(entry.bytes for entry in entries),
            "num_examples": sum(len(entry.keys) for entry in entries),
        }
        for split, entries in manifest.splits.items()
    ]
    head = {
        "tags": ["webdataset", "360-video", *["ambisonics", "spatial-audio"] * is_foa],
        "size_categories": [size],
        "configs": [
            {"config_name": "default", "data_files": files, "default": True},
            {"config_name": BYTES, "data_files": files},
        ],
        "dataset_info": [
            {"config_name": "default", "features": columns(indices), "splits": splits},
            {"config_name": BYTES, "features": columns(indices, as_bytes=True), "splits": splits},
        ],
    }
    licence = "# license: state that of the recordings here, as the Hub names it\n"
    return f"---\n{licence}{yaml.dump(head, Dumper=_Plain, sort_keys=False)}---\n\n"


def split_name(split: str) -> str:
    """A split's name for `datasets`, which allows no hyphen."""
    return split.replace("-", "_")


def columns(indices: list[ShardIndex], as_bytes: bool = False) -> list[dict[str, Any]]:
    """Columns of the samples, one for each member that any of them has, as `datasets` writes them
    in YAML. A sample without a member or field has None there."""
    dtypes = {} if as_bytes else _MEDIA
    samples = [sample for index in indices for sample in index.samples]
    suffixes = sorted(set[str]().union(*(sample.members for sample in samples)))
    maps = [suffix for suffix in suffixes if suffix.endswith(LABEL_MAP_SUFFIX)]
    media = [
        {"name": suffix, "dtype": dtypes.get(suffix.rpartition(".")[2], "binary")}
        for suffix in suffixes
        if suffix != "json" and (suffix not in maps or len(maps) <= _MOST_MAPS)
    ]
    label = int if any(isinstance(sample.label, int) for sample in samples) else str
    record = {"name": "json", "struct": _fields(SampleInfo, label)}
    names = [{"name": name, "dtype": "string"} for name in ("__key__", "__url__")]
    return [*media, record, *names]


def _fields(record: type, label: type = str) -> list[dict[str, Any]]:
    """The fields of a record, whose ``label`` is of one type in each set."""
    hints = get_type_hints(record)
    if is_dataclass(record):
        hints = {field.name: hints[field.name] for field in fields(record)}
    kinds = {name: label if name == "label" else kind for name, kind in hints.items()}
    return [
        {"name": name, **_column(kind)} for name, kind in kinds.items() if name not in _NOT_COLUMNS
    ]


def _column(kind: Any) -> dict[str, Any]:
    """A type of a record's field in the words of `datasets`."""
    if get_origin(kind) in (types.UnionType, Union):
        (kind,) = (one for one in get_args(kind) if one is not type(None))
    if get_origin(kind) in (list, tuple):
        inner = _column(get_args(kind)[0])
        return {"list": inner.get("struct") or inner.get("dtype") or inner}
    if is_dataclass(kind) or is_typeddict(kind):
        return {"struct": _fields(kind)}
    return {"dtype": _DTYPES[kind]}


def _text(
    name: str,
    picture: str,
    described: dict[str, Any],
    indices: list[ShardIndex],
    is_foa: bool,
) -> str:
    splits = described["splits"]
    rows = [
        f"| {split} | {one['clips']} | {one['sources']} | {one['hours']:.2f} | "
        f"{one['views']} | {one['shards']} | {size_in_words(one['bytes'])} |"
        for split, one in splits.items()
    ]
    first = "train" if "train" in splits else next(iter(splits))
    maps = sum(column["name"].endswith(LABEL_MAP_SUFFIX) for column in columns(indices))
    stored = any(
        suffix.endswith(LABEL_MAP_SUFFIX)
        for index in indices
        for sample in index.samples
        for suffix in sample.members
    )
    left_out = "" if maps or not stored else _LEFT_OUT
    return _PAGE.format(
        name=printable(name),
        picture=picture,
        sound=_FOA if is_foa else _BEAMS,
        rows="\n".join(rows),
        split=first,
        column=split_name(first),
        left_out=left_out,
    )


_FOA = "its sound field as first-order\nambisonics, turned to each view or unrotated"
_BEAMS = "the sound towards each\nview, without ambisonics"
_LEFT_OUT = (
    "\nIts label maps are too many to be columns; `avsa360` reads them (`ShardSet.label_map`).\n"
)
_PAGE = """# {name}

Clips of 360° video with sound: perspective views of each clip, and {sound}.
Made by `avprep build-shards` of avsa360; `manifest.json` holds the options.

![A clip: energy of its sound over the picture, its views and their sound]({picture})

| split | clips | recordings | hours | views per clip | shards | size |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

## Licence

Not stated: that of the recordings holds. Whoever publishes this set states it here and above.

## Reading it

```python
from datasets import load_dataset

rows = load_dataset("PATH-OR-NAME", split="{column}", streaming=True)
```

`view00.mp4` and so on are the crops of the views; `flac` is the unrotated sound, or `view00.flac`
and so on the sound turned to each view. `json` holds where the views look, and labels where there
are any; a field that a clip lacks is None. That takes `datasets[audio,vision]`. Without torchcodec
and Pillow, avsa360 decodes the clips, and turns their sound to each view:

```python
from datasets import load_dataset
from shards import decode_sample

rows = load_dataset("PATH-OR-NAME", "bytes", split="{column}", streaming=True)
clip = decode_sample(next(iter(rows)))  # frames, sound, record
```
{left_out}
For training, avsa360 reads windows of the tars, without decoding whole clips:

```python
from shards import ShardSet

clips = ShardSet("PATH", "{split}")
```

## Conventions

Azimuth is positive to the left, elevation upwards, in degrees. Ambisonics are ambiX: W, Y, Z, X,
SN3D, 16 bits; stored = `json.audio.gain` × original. Fields of view are angles between the outer
edges of a crop.
"""
