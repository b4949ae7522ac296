"""Damage to JSON by type and place: hostile names, absurd numbers, wrong types, depth and size."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from numpy.random import Generator

LINE = "EVIL-LINE"
"""What a name puts on a line of its own; no output may show it at the begin of a line."""
_RAW = "@@raw@@"


class Raw(str):
    """Text that stands in the JSON as it is, be it JSON or not."""


def hostile_names(outside: str, port: int) -> list[str]:
    """Names that lead out of a folder, run something, or draw on a terminal.

    None is a real file of the machine: a command that trusts one of them must not do harm.
    """
    return [
        "../outside/victim.txt",
        "../../outside/victim.txt",
        f"{outside}/victim.txt",
        f"{outside}/new/planted.tar",
        "train/../../outside/train/train-000000.tar",
        "../outside/train/train-000000.tar",
        "../outside/train",
        "..",
        ".",
        "",
        "/",
        f"{outside}/zero",
        "../outside/zero",
        "/proc/self/fd/1",
        "train/train-000001.tar/../train-000000.tar",
        "train//train-000000.tar",
        "train/train-000000.tar\0.txt",
        "train\\..\\..\\outside\\victim.txt",
        f"a\x1b[2J\x1b]0;EVIL\x07\n{LINE}",
        f"a\r{LINE}",
        f"a\u2028{LINE}",
        "a\x9b31mred",
        "\u202egnp.exe",
        "\ud800",
        "~/victim.txt",
        "-rf",
        "--out=/tmp/x",
        f"$(touch {outside}/executed)",
        f"`touch {outside}/executed`;touch {outside}/executed|touch {outside}/executed",
        "%s%n%x{0.__class__}",
        f"http://127.0.0.1:{port}/name",
        f"tcp://127.0.0.1:{port}",
        f"file://{outside}/victim.txt",
        f"local://{outside}/train",
        f"concat:{outside}/victim.txt|http://127.0.0.1:{port}/name",
        "pipe:0",
        "a/" * 3000,
        "a" * 300,
        "a" * 1_000_000,
    ]


def _numbers() -> list[Any]:
    return [
        *(0, -1, 1, -0.0, 0.5, 1e-300, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**9, 10**30),
        *(1e308, 1e-9, 1e9, 8192, 65536, True),
        *map(Raw, ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000, "1" + "0" * 400)),
        *map(Raw, ("0x10", "01", "1.", "+1", "1_000")),
    ]


def _anything() -> list[Any]:
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    return [
        *(None, True, 3, 0.5, "x", "", [], {}, [[]], [None], [{}], {"": {}}, {"a": [1]}, deep),
        *([0] * 1_000_000, ["x"] * 100_000, [{}] * 100_000, {str(i): i for i in range(100_000)}),
        Raw("[" * 100_000),
        Raw('{"a":' * 50_000),
        Raw("[" * 2_000 + "]" * 2_000),
        Raw('"\\u0000\\ud800"'),
        Raw('"\xff'),
        Raw(""),
    ]


Place = tuple[Any, Any]
"""A container and a key in it."""


def places(value: Any) -> Iterator[Place]:
    """Every place in a JSON value, at most ten of every long list."""
    if isinstance(value, dict):
        pairs: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list):
        pairs = list(enumerate(value))[:10]
    else:
        return
    for key, inner in pairs:
        yield value, key
        yield from places(inner)


def damage_value(rng: Generator, value: Any, names: list[str]) -> str:
    """Change one place of a JSON value in place, and return what was done."""
    found = list(places(value))
    if not found:
        return "nothing to change"
    # By name of the member first: there are many numbers of places and few names.
    labels = sorted({_label(key) for _, key in found})
    label = labels[int(rng.integers(len(labels)))]
    found = [place for place in found if _label(place[1]) == label]
    container, key = found[int(rng.integers(len(found)))]
    rule = RULES[int(rng.integers(len(RULES)))]
    return f"{label}: {rule(rng, container, key, names)}"


def _label(key: Any) -> str:
    return "[]" if isinstance(key, int) else str(key)


def _by_type(rng: Generator, container: Any, key: Any, names: list[str]) -> str:
    old = container[key]
    if isinstance(old, str):
        return _name(rng, container, key, names)
    if isinstance(old, int | float):
        return _put(container, key, _pick(rng, _numbers()))
    return _wrong_type(rng, container, key, names)


def _name(rng: Generator, container: Any, key: Any, names: list[str]) -> str:
    return _put(container, key, _pick(rng, names))


def _wrong_type(rng: Generator, container: Any, key: Any, names: list[str]) -> str:
    return _put(container, key, _pick(rng, _anything()))


def _missing(rng: Generator, container: Any, key: Any, names: list[str]) -> str:
    del container[key]
    return "missing"


def _repeated(rng: Generator, container: Any, key: Any, names: list[str]) -> str:
    if isinstance(container, list):
        count = int(rng.choice([1, 100, 10_000]))
        container[key:key] = [container[key]] * count
        return f"{count} times more"
    container[f"{key} "] = container[key]
    return "twice"


def _renamed(rng: Generator, container: Any, key: Any, names: list[str]) -> str:
    if isinstance(container, list):
        return _name(rng, container, key, names)
    new = _pick(rng, names)
    container[new] = container.pop(key)
    return f"called {new[:60]!r}"


def _extra(rng: Generator, container: Any, key: Any, names: list[str]) -> str:
    if isinstance(container, dict):
        container[_pick(rng, names)] = _pick(rng, _anything())
        return "a member more"
    return _wrong_type(rng, container, key, names)


Rule = Callable[[Generator, Any, Any, list[str]], str]
RULES: tuple[Rule, ...] = (_by_type, _by_type, _by_type, _by_type, _by_type)
RULES += (_wrong_type, _missing, _repeated, _renamed, _extra)


def _pick(rng: Generator, choices: list[Any]) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _put(container: Any, key: Any, new: Any) -> str:
    container[key] = new
    text = f"{type(new).__name__} {str(new)[:60]!r}"
    return text if len(str(new)) <= 60 else f"{text}… of {len(str(new))}"


def dump(value: Any) -> bytes:
    """JSON, or what stands for it: `Raw` text as it is, lone surrogates and NaN too."""
    raws: list[str] = []

    def marked(item: Any) -> Any:
        if isinstance(item, Raw):
            raws.append(str(item))
            return f"{_RAW}{len(raws) - 1}{_RAW}"
        if isinstance(item, dict):
            return {str(key): marked(inner) for key, inner in item.items()}
        return [marked(inner) for inner in item] if isinstance(item, list) else item

    text = json.dumps(marked(value))
    for number, raw in enumerate(raws):
        text = text.replace(f'"{_RAW}{number}{_RAW}"', raw)
    return text.encode("latin-1", "replace")


def damage_json(rng: Generator, content: bytes, names: list[str]) -> tuple[bytes, str]:
    """A JSON file with one to three places changed, or with other content altogether."""
    value = json.loads(content)
    if rng.random() < 0.06:
        value, said = _pick(rng, _anything()), "other content altogether"
        return dump(value), said
    said = "; ".join(damage_value(rng, value, names) for _ in range(int(rng.choice([1, 1, 2, 3]))))
    changed = dump(value)
    if rng.random() < 0.03 and isinstance(value, dict) and value:
        key = sorted(value)[0]
        member = f"{json.dumps(key)}: null, ".encode()
        changed, said = b"{" + member + changed[1:], said + "; a member twice"
    return changed, said
