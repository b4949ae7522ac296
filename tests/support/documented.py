"""The commands, code, links and paths of the README and the docs pages, and whether they exist."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
from click.testing import CliRunner

from avprep.cli.main import main as avprep
from avtrain.cli.main import main as avtrain
from shards import __version__
from tests.support import ROOT

PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
        *(ROOT / "docs").glob("*.md"),
        ROOT / "benchmarks" / "README.md",
    ]
)
OURS = {"avprep": avprep, "avtrain": avtrain}
NEEDED_BY_OTHERS = {"cffi", "pycparser"}
"""Packages that soundfile needs, for machines without a network."""
LANGUAGES = ("bash", "python", "text")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^(?:avprep|avtrain) [a-z]|^(?:pip|make|python|torchrun) ", re.MULTILINE)
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_PATH = re.compile(
    r"(?:avprep|avtrain|shards|tests|docs|benchmarks|\.ci)/[\w./-]*\w|Makefile|\w+\.cff"
)


class Stale(Exception):
    """A page says something that is not true of the code."""


@dataclass(frozen=True)
class Block:
    language: str
    text: str


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page. A block without a known language is refused."""
    blocks = [Block(language, text) for language, text in _BLOCK.findall(page)]
    for block in blocks:
        if block.language not in LANGUAGES:
            raise Stale(f"a block is marked {block.language!r}, not one of {LANGUAGES}")
        if block.language == "text" and _COMMAND.search(block.text):
            raise Stale(f"a command is marked as text, which no test runs: {block.text}")
    return blocks


def commands_of(block: Block) -> list[list[str]]:
    """The words of each command in a block of bash; a script counts as one command."""
    if block.text.startswith("#!"):
        return [["#!", block.text]]
    lines = block.text.replace("\\\n", " ").splitlines()
    words = (shlex.split(line, comments=True) for line in lines)
    return [command for command in words if command]


def check(words: list[str]) -> None:
    """Check, without running it, that a command can be given: raises Stale if it cannot.

    Covers options and values of our commands, targets of make, files and options of benchmarks,
    and extras of pip.
    """
    first, *rest = words
    if first in OURS:
        check_ours(words)
    elif first == "#!":
        _check_script(rest[0])
    elif first == "make":
        made = subprocess.run(
            ["make", "-n", *rest], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise Stale(f"{' '.join(words)}: {made.stderr.strip()}")
    elif first == "python":
        _check_benchmark(rest)
    elif first == ".venv/bin/pytest":
        _check_paths(rest)
    elif first == "pip" and rest[0] in ("install", "wheel", "download"):
        _check_pip(rest[1:])
    elif first == "torchrun" and "-m" in rest:
        check_ours(rest[rest.index("-m") + 1 :])
    elif first == "torchrun" and rest[-1].endswith(".py"):
        pass  # the example in Python of its page
    elif first == "eval":
        _check_completion(" ".join(rest).removeprefix("$(").removesuffix(")"))
    elif rest[-2:] == ["|", "source"]:
        _check_completion(" ".join(words[:-2]))
    elif first == "tar":
        pass  # run by its page's test
    else:
        raise Stale(f"no test knows how to check the command {' '.join(words)!r}")


def context_of(command: click.Command, name: str) -> click.Context:
    """A context as the command's group makes it.

    Click keeps the help option of a command's first context, so a plain one would take ``-h`` away
    from later tests.
    """
    return click.Context(command, info_name=name, help_option_names=["-h", "--help"])


def check_ours(words: list[str]) -> tuple[str, click.Command]:
    """Check a command of avprep or avtrain. Returns its name ("avtrain eval avsa") and itself."""
    name, *rest = words
    command: click.Command = OURS[name]
    while isinstance(command, click.Group) and rest:
        if rest[0].startswith("-"):
            break
        if rest[0] not in command.commands:
            raise Stale(f"{name} has no command {rest[0]!r}")
        command, name = command.commands[rest[0]], f"{name} {rest[0]}"
        rest = rest[1:]
    with context_of(command, name) as context:
        try:
            values, _, _ = command.make_parser(context).parse_args(list(rest))
            for option in command.params:
                # Paths are checked where the command runs.
                path = isinstance(option.type, click.Path | click.File)
                if option.name in values and values[option.name] is not None and not path:
                    option.type_cast_value(context, values[option.name])
        except click.UsageError as error:
            raise Stale(f"{' '.join(words)}: {error.format_message()}") from None
    return name, command


def _check_completion(command: str) -> None:
    found = re.fullmatch(r"_(\w+)_COMPLETE=(\w+) (\w+)", command)
    if found is None or found[3] not in OURS or found[1] != found[3].upper():
        raise Stale(f"no completion of ours: {command}")
    environment = {f"_{found[1]}_COMPLETE": found[2]}
    done = CliRunner().invoke(OURS[found[3]], [], prog_name=found[3], env=environment)
    if done.exit_code or "complet" not in done.output:
        raise Stale(f"no completion for {found[2]}: {done.output}")


def _check_script(text: str) -> None:
    """A batch script: its syntax, and our command in it."""
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Stale(done.stderr)
    words = shlex.split(text.replace("\\\n", " "), comments=True)
    starts = [number for number, word in enumerate(words) if word in OURS]
    if not starts:
        raise Stale(f"a script has no command of ours: {text}")
    check_ours(words[starts[0] :])


def _check_benchmark(words: list[str]) -> None:
    """A file or module of benchmarks/: that it exists and has the options."""
    if words[0] == "-m":
        folder = ROOT.joinpath(*words[1].split("."))
        file = folder / "main.py" if folder.is_dir() else folder.with_suffix(".py")
        rest = words[2:]
    else:
        file, rest = ROOT / words[0], words[1:]
    if not file.is_file():
        raise Stale(f"python {' '.join(words)}: {file} does not exist")
    known = {
        argument.value
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1].startswith("add")
        for argument in call.args
        if isinstance(argument, ast.Constant) and str(argument.value).startswith("--")
    }
    if file.name == "training_memory.py":  # it hands the rest to pretrain
        check_ours(["avtrain", "pretrain", *(word for word in rest if word not in known)])
        return
    for word in rest:
        if word.startswith("--") and word not in known:
            raise Stale(f"{file.name} has no option {word}")


def _check_paths(words: list[str]) -> None:
    for word in words:
        if not word.startswith("-") and not (ROOT / word).exists():
            raise Stale(f"{word} does not exist")


def _check_pip(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wheel = f"dist/{project['name']}-{__version__}-py3-none-any.whl"
    places = "|".join(map(re.escape, (".", project["name"], wheel)))
    extras_of_ours = project["optional-dependencies"].values()
    needed = {*project["dependencies"], *(name for names in extras_of_ours for name in names)}
    packages = {re.split(r"[^\w-]", name)[0] for name in needed} | NEEDED_BY_OTHERS
    for word in words:
        extras = re.fullmatch(rf"(?:{places})\[([\w,]+)\]", word)
        if extras:
            unknown = set(extras[1].split(",")) - set(project["optional-dependencies"])
            if unknown:
                raise Stale(f"pip {word}: no extra {', '.join(unknown)}")
        elif word.startswith("-") or word in packages or word == "dist":
            continue
        elif not (ROOT / word).exists():
            raise Stale(f"pip: {word} does not exist")


def links_of(page: str) -> list[str]:
    """The targets of a page's links inside the checkout."""
    return [link for link in _LINK.findall(page) if "://" not in link]


def paths_of(page: str) -> list[str]:
    """The files and folders of the checkout that a page names in `code`."""
    return [code for code in _CODE.findall(page) if _PATH.fullmatch(code)]


def options_of(page: str) -> Iterator[str]:
    """The options that a page names in `code`."""
    for code in _CODE.findall(page):
        yield from re.findall(r"(?<![\w-])--[a-z][\w-]*", code)


@cache
def known_options() -> frozenset[str]:
    """The options of all our commands and benchmarks."""

    def walk(command: click.Command) -> Iterator[str]:
        for parameter in command.params:
            yield from (*parameter.opts, *parameter.secondary_opts)
        if isinstance(command, click.Group):
            for inner in command.commands.values():
                yield from walk(inner)

    names = {name for command in OURS.values() for name in walk(command)} | {"--help"}
    for file in (ROOT / "benchmarks").rglob("*.py"):
        names |= set(re.findall(r'"(--[a-z][\w-]*)"', file.read_text()))
    return frozenset(names)


def names_in(file: Path) -> set[str]:
    """The functions, classes and constants that a file defines at its top level."""
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {
                leaf.id for t in targets for leaf in ast.walk(t) if isinstance(leaf, ast.Name)
            }
    return names
