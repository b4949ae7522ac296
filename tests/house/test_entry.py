"""The entry points: `--version`, `-h`, and the sentence said where a command cannot run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from avprep.cli.main import main as avprep
from avtrain.cli.main import main as avtrain
from shards import __version__
from tests.support import ROOT

COMMANDS = {"avprep": avprep, "avtrain": avtrain}


def all_commands() -> Iterator[tuple[str, ...]]:
    """Every command and subcommand as its words."""

    def below(words: tuple[str, ...], command: click.Command) -> Iterator[tuple[str, ...]]:
        yield words
        if isinstance(command, click.Group):
            for name, sub in command.commands.items():
                yield from below((*words, name), sub)

    for name, command in COMMANDS.items():
        yield from below((name,), command)


def python(*arguments: object, cwd: Path, path: object = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_commands_are_found_to_be_tested() -> None:
    assert {("avprep", "build-shards"), ("avtrain", "eval", "action")} <= set(all_commands())


@pytest.mark.parametrize("words", list(all_commands()), ids=" ".join)
def test_every_command_tells_its_version_and_its_help(words: tuple[str, ...]) -> None:
    name, *rest = words
    version = CliRunner().invoke(COMMANDS[name], [*rest, "--version"])
    assert version.output == f"{name}, version {__version__}\n"
    short = CliRunner().invoke(COMMANDS[name], [*rest, "-h"])
    assert short.exit_code == 0
    assert short.output.startswith("Usage: ")
    assert short.output == CliRunner().invoke(COMMANDS[name], [*rest, "--help"]).output


@pytest.mark.parametrize("command", COMMANDS)
def test_version_is_known_to_a_checkout_that_is_not_installed(command: str, tmp_path: Path) -> None:
    code = (
        "import sys, runpy, importlib.metadata as m\n"
        "m.distribution = lambda name: (_ for _ in ()).throw(m.PackageNotFoundError(name))\n"
        f"sys.argv = [{command!r}, '--version']\n"
        f"runpy.run_module({command!r}, run_name='__main__')"
    )
    told = python("-c", code, cwd=tmp_path)
    assert told.stdout == f"{command}, version {__version__}\n", told.stderr


@pytest.mark.parametrize("shell", ["bash_source", "zsh_source", "fish_source"])
@pytest.mark.parametrize("name", COMMANDS)
def test_shells_complete_the_commands(name: str, shell: str) -> None:
    wanted = {f"_{name.upper()}_COMPLETE": shell}
    told = CliRunner().invoke(COMMANDS[name], [], prog_name=name, env=wanted)
    assert told.exit_code == 0
    assert "COMP_WORDS" in told.output


def one_sentence(told: subprocess.CompletedProcess[str]) -> str:
    """The message of a command that cannot run: one line, exit status 2."""
    assert told.returncode == 2, told.stderr
    assert told.stderr.startswith("Error: ")
    assert told.stderr.count("\n") == 1, told.stderr
    return told.stderr


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("hiding", ["shards.py", "shards/__init__.py"])
def test_a_file_that_hides_the_package_is_named_and_not_run(
    command: str, hiding: str, tmp_path: Path
) -> None:
    file = tmp_path / hiding
    file.parent.mkdir(exist_ok=True)
    file.write_text("print('avsa360 shards')\n")
    told = python("-m", command, "--version", cwd=tmp_path)
    message = one_sentence(told)
    assert told.stdout == ""
    assert f"{file} hides the package `shards` of avsa360; rename" in message


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_package_is_named(command: str, tmp_path: Path) -> None:
    (tmp_path / command).symlink_to(ROOT / command)
    (tmp_path / "shards").mkdir()  # as another distribution of that name leaves it, uninstalled
    message = one_sentence(python("-S", "-c", run_without_site(command), cwd=tmp_path, path=""))
    assert "`shards` of avsa360 is missing; install avsa360 again" in message


def run_without_site(command: str) -> str:
    """Code that runs a command where nothing is installed but Click."""
    folder = str(Path(click.__file__).parents[1])
    return (
        f"import sys; sys.path.append({folder!r})\n"
        f"import runpy; runpy.run_module({command!r}, run_name='__main__')"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_data_folder_named_shards_hides_nothing(command: str, tmp_path: Path) -> None:
    (tmp_path / "shards" / "train").mkdir(parents=True)
    (tmp_path / "shards" / "manifest.json").write_text("{}")
    told = python("-m", command, "--version", cwd=tmp_path)
    assert told.stdout == f"{command}, version {__version__}\n", told.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_systems_without_file_locks_are_told_what_is_needed(command: str, tmp_path: Path) -> None:
    code = (
        "import sys, runpy\n"
        "sys.modules['fcntl'] = None\n"  # importing it now fails
        f"runpy.run_module({command!r}, run_name='__main__')"
    )
    message = one_sentence(python("-c", code, cwd=tmp_path))
    assert "runs on Linux and macOS" in message


def test_reading_shards_without_file_locks_says_what_is_needed(tmp_path: Path) -> None:
    code = "import sys; sys.modules['fcntl'] = None; import shards.reader"
    told = python("-c", code, cwd=tmp_path)
    assert "ImportError: avsa360 runs on Linux and macOS" in told.stderr
