"""Damage to shard sets. A stranger's set agrees with itself: what is changed inside a tar goes with
the index's places, and its hashes and sizes with the manifest."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

from numpy.random import Generator

from tests.attack.damage.files import damage_bytes, damage_file, flip_bit
from tests.attack.damage.members import damage_members
from tests.attack.damage.values import damage_json, dump, hostile_names

Damage = tuple[str, bool]
"""What was done, and whether `avprep verify` must see it."""


_CHECKSUM = re.compile(rb',\s*"checksum":\s*"[0-9a-f]{64}"')


class SetDamage:
    """Changes a set in a folder; ``outside`` and ``port`` are what it may lead to."""

    def __init__(self, root: Path, outside: Path, port: int) -> None:
        self._root, self._outside, self._port = root, outside, port
        self._names = hostile_names(str(outside), port)

    def is_readable(self) -> bool:
        """Whether no file has become a pipe, endless, or vast: this process is to go on."""
        files = [self._root / "manifest.json", *self._root.glob("*/*")]
        return all(path.is_file() and path.stat().st_size < 100_000_000 for path in files)

    def any(self, rng: Generator) -> Damage:
        """One kind of damage."""
        kind = str(rng.choice(["record", "member", "index", "manifest", "file", "flip", "bytes"]))
        if kind == "flip":
            return f"{kind} {self._flip(rng)}", True
        if kind in ("file", "bytes"):
            path = self._file(rng)
            rule = damage_file if kind == "file" else damage_bytes
            return f"{kind} {path.name}: {rule(rng, path, self._outside)}", False
        if kind == "manifest":
            path = self._root / "manifest.json"
            said = self._json(rng, path)
            path.write_bytes(sealed(path.read_bytes()))
            return f"manifest: {said}", False
        tar = self._tar(rng)
        if kind == "index":
            said = self._json(rng, index_of(tar))
            mend_manifest(self._root, tar)
        else:
            said = self.sample(rng, tar, kind)
        return f"{kind} in {tar.name}: {said}", False

    def _flip(self, rng: Generator) -> str:
        path = self._file(rng)
        return f"{path.name}: {flip_bit(rng, path, self._outside)}"

    def _json(self, rng: Generator, path: Path) -> str:
        changed, said = damage_json(rng, path.read_bytes(), self._names)
        path.write_bytes(changed)
        return said

    def sample(self, rng: Generator, tar: Path, kind: str) -> str:
        """Change a record (kind ``record``) or a member of a sample, and what describes it."""
        samples = unpack(tar)
        key = sorted(samples)[int(rng.integers(len(samples)))]
        members = samples[key]
        if kind == "record":
            members["json"], said = damage_json(rng, members["json"], self._names)
        else:
            said = damage_members(rng, members, str(self._outside), self._port)
        repack(tar, samples)
        mend_manifest(self._root, tar)
        return said

    def _tar(self, rng: Generator) -> Path:
        tars = sorted(self._root.glob("*/*.tar"))
        return tars[int(rng.integers(len(tars)))]

    def _file(self, rng: Generator) -> Path:
        tar = self._tar(rng)
        files = (tar, index_of(tar), self._root / "manifest.json")
        return files[int(rng.integers(3))]


def mend_manifest(root: Path, tar: Path) -> None:
    """Give the manifest the sizes and hashes that files have now."""
    path = root / "manifest.json"
    manifest = json.loads(path.read_bytes())
    content, index = tar.read_bytes(), index_of(tar).read_bytes()
    facts = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    facts["index_sha256"] = hashlib.sha256(index).hexdigest()
    everything = 0
    for split in manifest["splits"].values():
        for entry in split["shards"]:
            if entry["file"].rpartition("/")[2] == tar.name:
                entry.update({name: facts[name] for name in facts if name in entry})
        split["bytes"] = sum(entry["bytes"] for entry in split["shards"])
        everything += split["bytes"]
    manifest["totals"]["bytes"] = everything
    path.write_bytes(sealed(json.dumps(manifest, indent=1).encode()))


def label(root: Path) -> None:
    """Give the clips of a set labels."""
    for tar in sorted(root.glob("*/*.tar")):
        samples = unpack(tar)
        names = {key: f"class {number % 2}" for number, key in enumerate(samples)}
        for key, members in samples.items():
            members["json"] = dump({**json.loads(members["json"]), "label": names[key]})
        index = json.loads(index_of(tar).read_bytes())
        for sample in index["samples"]:
            sample["label"] = names[sample["key"]]
        index_of(tar).write_bytes(dump(index))
        repack(tar, samples)
        mend_manifest(root, tar)


def make_old(root: Path) -> None:
    """Let a set be one of the first version of the format, which had fewer checksums."""
    path = root / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for split in manifest["splits"].values():
        for entry in split["shards"]:
            entry.pop("index_sha256", None)
    manifest.pop("minor_version", None)
    manifest.pop("checksum", None)
    path.write_bytes(dump(manifest))


def sealed(manifest: bytes) -> bytes:
    """A manifest with the checksum of what it now holds, if it has one."""
    rest, count = _CHECKSUM.subn(b"", manifest)
    if not count:
        return manifest
    body = rest.rstrip().removesuffix(b"}").rstrip()
    digest = hashlib.sha256(body).hexdigest()
    return body + f',\n "checksum": "{digest}"\n}}\n'.encode()


def index_of(tar: Path) -> Path:
    return tar.with_suffix(".index.json")


def unpack(tar: Path) -> dict[str, dict[str, bytes]]:
    """The members of every sample by suffix, by key."""
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(tar) as archive:
        for member in archive:
            key, _, suffix = member.name.partition(".")
            file = archive.extractfile(member)
            samples.setdefault(key, {})[suffix] = b"" if file is None else file.read()
    return samples


def repack(tar: Path, samples: dict[str, dict[str, bytes]]) -> None:
    """Write a tar and the places of its members into its index."""
    buffer, ranges = io.BytesIO(), {}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for key, members in samples.items():
            for suffix in sorted(members):
                header = tarfile.TarInfo(f"{key}.{suffix}")
                header.size, header.mode = len(members[suffix]), 0o644
                ranges[key, suffix] = [buffer.tell() + tarfile.BLOCKSIZE, header.size]
                archive.addfile(header, io.BytesIO(members[suffix]))
    content = buffer.getvalue()
    tar.write_bytes(content)
    path = index_of(tar)
    index: dict[str, Any] = json.loads(path.read_bytes())
    for sample in index["samples"]:
        for suffix in sample["members"]:
            sample["members"][suffix] = ranges[sample["key"], suffix]
    index |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path.write_bytes(dump(index) + b"\n")


def place_elsewhere(rng: Generator, root: Path, entry: dict[str, Any]) -> str:
    """Let a shard lie beside the set, or behind a link in it: a copy of it by name could land
    anywhere."""
    if rng.random() < 0.3:
        (root / "train").rename(root.parent / "real")
        (root / "train").symlink_to(root.parent / "real")
        return "behind a link"
    folder = "../" * int(rng.integers(1, 4)) + str(rng.choice(["placed", "inside", "cache"]))
    for field in ("file", "index"):
        name = f"{folder}/{Path(entry[field]).name}"
        to = root / name
        to.parent.mkdir(exist_ok=True)
        shutil.copyfile(root / entry[field], to)
        entry[field] = name
    return folder


def rename_all(rng: Generator, path: Path, names: list[str]) -> str:
    """Every tar and index of a build's state has the same hostile name."""
    value = json.loads(path.read_bytes())
    name = names[
        int(rng.integers(10 if rng.random() < 0.6 else len(names)))
    ]  # the first lead outside

    def changed(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: changed(inner) for key, inner in item.items()}
        if isinstance(item, list):
            return [changed(inner) for inner in item]
        return name if isinstance(item, str) and item.endswith((".tar", ".index.json")) else item

    path.write_bytes(dump(changed(value)))
    return f"all files are called {name[:60]!r}"
