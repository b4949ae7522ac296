"""Checkpoints, and other files that torch writes, that are not what they should be."""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from numpy.random import Generator

from tests.attack.damage.files import damage_file
from tests.attack.damage.values import damage_value, hostile_names, places

Content = dict[str, Any]


class _Opens:
    """Unpickled, it makes a file: the mark of code that ran."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self._mark, "w")


def damage_checkpoint(rng: Generator, path: Path, outside: Path, port: int) -> tuple[str, bool]:
    """Change a file of torch; returns what was done, and whether a command must refuse it."""
    choice = rng.random()
    if choice < 0.2:
        return damage_file(rng, path, outside), False
    if choice < 0.35:
        return _archive(rng, path, outside / "executed"), True
    content = torch.load(path, map_location="cpu", weights_only=True)
    if choice < 0.6:
        said, refused = damage_value(rng, content, hostile_names(str(outside), port)), False
    else:
        said, refused = RULES[int(rng.integers(len(RULES)))](rng, content)
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer)
    except (UnicodeEncodeError, RecursionError, RuntimeError):  # a name that torch cannot store
        return "nothing: torch cannot save this", False
    path.write_bytes(buffer.getvalue())
    return said, refused


def _archive(rng: Generator, path: Path, mark: Path) -> str:
    """Other archives and pickles, which make a file when they are unpickled."""
    code = pickle.dumps(_Opens(str(mark)), protocol=2)
    how = str(
        rng.choice(["pickle", "legacy", "in the zip", "junk zip", "empty zip", "deep", "big"])
    )
    if how == "pickle":
        path.write_bytes(code)
    elif how == "legacy":
        buffer = io.BytesIO()
        torch.save({"a": _Opens(str(mark))}, buffer, _use_new_zipfile_serialization=False)
        path.write_bytes(buffer.getvalue())
    elif how == "in the zip":
        _rewrite(path, lambda name, data: code if name.endswith("data.pkl") else data)
    elif how == "junk zip":
        _rewrite(path, lambda name, data: rng.bytes(min(len(data), 1000)))
    elif how == "empty zip":
        with zipfile.ZipFile(path, "w"):
            pass
    elif how == "deep":
        deep = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
        _rewrite(path, lambda name, data: deep if name.endswith("data.pkl") else data)
    else:
        path.write_bytes(_bomb())
    return f"archive: {how}"


def _rewrite(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, change(name, data))


def _bomb() -> bytes:
    """A few MB, compressed, of what becomes 3 GB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("archive/data.pkl", "w", force_zip64=True) as file:
            for _ in range(3000):
                file.write(bytes(1_000_000))
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def _tensor(rng: Generator, content: Content) -> tuple[Content, str]:
    """A dictionary and the name of a tensor of floating point in it."""
    for part in ("model", "features"):
        tensors = content.get(part)
        if isinstance(tensors, dict) and (part == "model" or rng.random() < 0.2):
            names = [n for n, v in tensors.items() if torch.is_tensor(v) and v.is_floating_point()]
            if names:
                return tensors, names[int(rng.integers(len(names)))]
    return content, sorted(content)[int(rng.integers(len(content)))]


def _not_finite(rng: Generator, content: Content) -> tuple[str, bool]:
    tensors, name = _tensor(rng, content)
    value = float(rng.choice([math.nan, math.inf, -math.inf]))
    if not torch.is_tensor(tensors[name]) or not tensors[name].numel():
        return "nothing", False
    tensors[name] = tensors[name].clone(memory_format=torch.contiguous_format)
    tensors[name].view(-1)[int(rng.integers(tensors[name].numel()))] = value
    return f"{name}: one {value}", tensors is content.get("model")


def _all_nan(rng: Generator, content: Content) -> tuple[str, bool]:
    weights = content.get("model", {})
    for name, value in weights.items():
        if value.is_floating_point():
            weights[name] = torch.full_like(value, math.nan)
    return "all weights are NaN", bool(weights)


def _shape(rng: Generator, content: Content) -> tuple[str, bool]:
    tensors, name = _tensor(rng, content)
    shape = [(), (0,), (1,), (3, 5), (2, 3, 4, 5)][int(rng.integers(5))]
    tensors[name] = torch.zeros(shape)
    return f"{name}: shape {shape}", False


def _vast_shape(rng: Generator, content: Content) -> tuple[str, bool]:
    """One number that is said to be 400 GB of them."""
    tensors, name = _tensor(rng, content)
    tensors[name] = torch.zeros(1).expand(10**6, 10**5)
    return f"{name}: 10¹¹ numbers", False


def _dtype(rng: Generator, content: Content) -> tuple[str, bool]:
    tensors, name = _tensor(rng, content)
    dtypes = [torch.float64, torch.int64, torch.bool, torch.complex64, torch.float16]
    dtype = dtypes[int(rng.integers(len(dtypes)))]
    if torch.is_tensor(tensors[name]):
        tensors[name] = tensors[name].to(dtype)
    return f"{name}: {dtype}", False


def _no_tensor(rng: Generator, content: Content) -> tuple[str, bool]:
    tensors, name = _tensor(rng, content)
    others: list[Any] = [None, 3, "x", [], {}, [torch.zeros(3)], torch.zeros(2, 2).to_sparse()]
    others.append(torch.ones(3, device="meta"))
    tensors[name] = others[int(rng.integers(len(others)))]
    return f"{name}: {type(tensors[name]).__name__}", False


def _lost(rng: Generator, content: Content) -> tuple[str, bool]:
    tensors, name = _tensor(rng, content)
    del tensors[name]
    return f"{name}: missing", False


def _more(rng: Generator, content: Content) -> tuple[str, bool]:
    tensors, name = _tensor(rng, content)
    tensors[f"{name}\x1b[2J\nEVIL-LINE"] = torch.zeros(3)
    return "a tensor more", False


def _part(rng: Generator, content: Content) -> tuple[str, bool]:
    """A part of another type altogether."""
    name = sorted(content)[int(rng.integers(len(content)))]
    others: list[Any] = [None, -1, 10**30, math.nan, "x", b"x", [], {}, [1], {"a": 1}, {1: 2}]
    others += [torch.zeros(3), torch.zeros(1).expand(10**6, 10**5), {"a": {"b": {}}}]
    content[name] = others[int(rng.integers(len(others)))]
    return f"{name}: {type(content[name]).__name__} {content[name]!r:.40}", False


def _setting(rng: Generator, content: Content) -> tuple[str, bool]:
    """A number of the settings from which the networks are made."""
    found = [
        (container, key)
        for container, key in places(content.get("config", {}))
        if isinstance(container[key], int | float)
    ]
    if not found:
        return "nothing", False
    container, key = found[int(rng.integers(len(found)))]
    numbers = [0, -1, 7, 100_000, 10**9, 2**62, 1e300, math.nan, math.inf, 0.5, True]
    container[key] = numbers[int(rng.integers(len(numbers)))]
    return f"setting {key}: {container[key]}", False


def _optimiser(rng: Generator, content: Content) -> tuple[str, bool]:
    state = content.get("optimiser", {}).get("state", {})
    for moments in state.values() if isinstance(state, dict) else ():
        for name in moments:
            moments[name] = [torch.zeros(3), None, torch.full((1,), math.nan), "x"][
                int(rng.integers(4))
            ]
    return "the optimiser's moments do not fit", False


Rule = Callable[[Generator, Content], tuple[str, bool]]
RULES: tuple[Rule, ...] = (_not_finite, _all_nan, _shape, _vast_shape, _dtype, _no_tensor)
RULES += (_lost, _more, _part, _part, _optimiser, _setting, _setting, _setting)
