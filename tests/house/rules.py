"""The rules of the house as functions: each lists what breaks it, so that the rules can be tested.

A room is a folder of modules, or a module at the root of a package. Rooms of a package stand on
steps, and a module imports rooms on the steps before its own, and its own room. In
``avtrain/evals`` the rule holds once more, between the modules and folders inside.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGES: dict[str, set[str]] = {"shards": set(), "avprep": {"shards"}, "avtrain": {"shards"}}
"""Which packages each package imports."""

STEPS: dict[str, list[set[str]]] = {
    "avprep": [
        {"errors"},
        {"processes", "media", "sphere", "foa"},
        {"workers", "formats"},
        {"recordings"},
        {"sample", "world"},
        {"build"},
        {"look", "view"},
        {"cli"},
    ],
    "avtrain": [
        {"errors", "run_folder"},
        {"exported", "networks", "runtime"},
        {"config"},
        {"checkpoint", "data", "options", "own_networks"},
        {"encoder", "published", "pretrain", "evals"},
        {"locate"},
        {"export", "report"},
        {"cli"},
    ],
    "avtrain.evals": [
        {"results"},
        {"bootstrap", "tables", "progress", "frozen", "truth"},
        {"feature_store", "evaluation"},
        {"embed", "locate", "retrieval"}
        | {"binary", "localization", "segmentation", "action", "probe", "seld"},
    ],
}
"""Rooms of each package, step by step: ``docs/code.md`` says why."""

MOST_FILES = 12
MOST_LINES = 400
MOST_PARAMETERS = 8

Sources = dict[str, str]
"""Text of each Python file by its path from the root of the checkout."""


def sources(root: Path, *folders: str) -> Sources:
    """Every Python file below ``folders`` of the checkout ``root``; ValueError if one has none."""
    found: Sources = {}
    for folder in folders:
        files = sorted((root / folder).rglob("*.py"))
        if not files:
            raise ValueError(f"{folder} holds no Python file")
        found |= {path.relative_to(root).as_posix(): path.read_text() for path in files}
    return found


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def module_of(path: str) -> str:
    """Dotted name of the module in the file at ``path``."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(path: str, text: str) -> Iterator[str]:
    """Dotted names that a file imports, anywhere in it, names taken from modules included.

    ``from a import b`` gives ``a.b``, since ``b`` may be a module. Raises ValueError for relative
    imports, which the rules could not follow.
    """
    for node in ast.walk(_parsed(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}:{node.lineno} imports relatively")
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages_out_of_order(files: Sources) -> list[str]:
    """Imports of a package that the importing package must not know."""
    found = []
    for path, text in files.items():
        package = path.split("/")[0]
        if package in PACKAGES:
            names = {name.split(".")[0] for name in imported(path, text)}
            wrong = names & set(PACKAGES) - PACKAGES[package] - {package}
            found += [f"{path} imports {name}" for name in sorted(wrong)]
    return found


def rooms_out_of_order(files: Sources) -> list[str]:
    """Imports of a room that does not stand on an earlier step, and rooms that have no step."""
    found = []
    for parent, steps in STEPS.items():
        step_of = {room: number for number, rooms in enumerate(steps) for room in rooms}
        prefix = parent + "."
        for path, text in files.items():
            module = module_of(path)
            if not module.startswith(prefix) or module == f"{parent}.__main__":
                continue
            room = module.removeprefix(prefix).split(".")[0]
            if room not in step_of:
                found.append(f"{path}: no step for room {room}")
                continue
            for name in imported(path, text):
                if name.startswith(prefix):
                    other = name.removeprefix(prefix).split(".")[0]
                    if other == room:
                        continue
                    if other not in step_of or step_of[other] >= step_of[room]:
                        found.append(f"{path} imports {name}")
    return sorted(set(found))


def crowded_rooms(files: Sources) -> list[str]:
    """Folders of more than `MOST_FILES` modules; special ones such as __init__ do not count."""
    counts: dict[str, int] = {}
    for path in files:
        folder, _, name = path.rpartition("/")
        counts[folder] = counts.get(folder, 0) + (not name.startswith("__"))
    return [f"{folder}: {count} files" for folder, count in counts.items() if count > MOST_FILES]


def long_files(files: Sources) -> list[str]:
    """Files of more than `MOST_LINES` lines."""
    lines = {path: text.count("\n") for path, text in files.items()}
    return [f"{path}: {count} lines" for path, count in lines.items() if count > MOST_LINES]


def _functions(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda]:
    for node in ast.walk(_parsed(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> list[ast.arg]:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return [*named, *(arg for arg in (given.vararg, given.kwarg) if arg is not None)]


def many_parameters(files: Sources) -> list[str]:
    """Functions of more than `MOST_PARAMETERS` parameters, ``self`` and ``cls`` not counted."""
    found = []
    for path, text in files.items():
        for function in _functions(text):
            names = [parameter.arg for parameter in _parameters(function)]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            if count > MOST_PARAMETERS:
                name = getattr(function, "name", "lambda")
                found.append(f"{path}:{function.lineno} {name}: {count} parameters")
    return found


def named_of(files: Sources) -> list[str]:
    """Variables, parameters, attributes, functions and modules that are called ``of``."""
    found = []
    for path, text in files.items():
        if path.rpartition("/")[2] == "of.py":
            found.append(path)
        for node in ast.walk(_parsed(text)):
            names: list[str | None] = []
            if isinstance(node, ast.Name):
                names = [node.id]
            elif isinstance(node, ast.arg | ast.keyword):
                names = [node.arg]
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.Attribute):
                names = [node.attr]
            elif isinstance(node, ast.alias):
                names = [node.asname or node.name]
            if "of" in names:
                found.append(f"{path}:{getattr(node, 'lineno', '?')}")
    return sorted(set(found))


def begins_with_of(files: Sources) -> list[str]:
    """Strings (docstrings, help texts, messages) and comments that begin with "Of"."""
    found = []
    for path, text in files.items():
        for node in ast.walk(_parsed(text)):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and re.match(r"\s*Of\b", node.value)
            ):
                found.append(f"{path}:{node.lineno} {node.value.strip()[:40]!r}")
        last = -1  # line of the last comment: the lines after it continue it
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                line = token.start[0]
                if re.match(r"# ?Of\b", token.string) and line != last + 1:
                    found.append(f"{path}:{line} {token.string[:40]!r}")
                last = line
    return found


_PRINTERS = {
    *("print", "echo", "secho", "set_description", "set_description_str", "set_postfix_str"),
    *("warn", "showwarning", "basicConfig", "getLogger", "print_exc"),
    *("tqdm.write", "bar.write", "sys.stdout", "sys.stderr"),
}


def printed_as_it_is(files: Sources) -> list[str]:
    """Uses of the terminal beside `shards.errors.show`, and words of progress bars that are not
    printable: what they print may be a stranger's.

    Excepted are whether it is a terminal, and the start of the commands, which imports nothing.
    """
    found = []
    for path, text in files.items():
        if path == "shards/errors.py" or path.endswith("cli/__init__.py"):
            continue
        parent = {
            child: node for node in ast.walk(_parsed(text)) for child in ast.iter_child_nodes(node)
        }
        for node in ast.walk(_parsed(text)):
            name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
            owner = getattr(getattr(node, "value", None), "id", "")
            names = {name, f"{owner}.{name}"}
            above = getattr(parent.get(node), "attr", "")
            if isinstance(node, ast.keyword) and node.arg == "desc":
                called = getattr(getattr(node.value, "func", None), "id", "")
                if called != "printable" and not isinstance(node.value, ast.Constant):
                    found.append(f"{path}:{node.value.lineno} desc")
            if names & _PRINTERS and above not in ("isatty", "fileno"):
                found.append(f"{path}:{getattr(node, 'lineno', '?')} {name}")
    return found


def unnamed_rooms(files: Sources, page: str) -> list[str]:
    """Folders and root modules of the packages that ``page`` (docs/code.md) does not name."""
    rooms = set()
    for path in files:
        folder, _, name = path.rpartition("/")
        rooms.add(folder)
        if folder in STEPS and not name.startswith("__"):
            rooms.add(path)
    return sorted(room for room in rooms if f"`{room}`" not in page)
