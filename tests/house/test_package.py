"""What is installed: a wheel without the checkout, an editable install, and the source archive."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from shards import __version__
from tests.support import ROOT
from tests.support.media import FAST, write_dot_recording
from tests.support.package import FILES, FOLDERS, copy_checkout

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 1, "-m")
PACKAGES = ("avprep", "avtrain", "shards")


@dataclass(frozen=True)
class Environment:
    """A virtual environment that has this package and what it needs; ``path`` is its folder."""

    path: Path

    @property
    def site_packages(self) -> Path:
        (folder,) = self.path.glob("lib/python*/site-packages")
        return folder

    def run(self, folder: Path, program: str, *arguments: object) -> tuple[int, str]:
        """Run one of its programs in a folder; gives the exit status and all that it printed."""
        variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        done = subprocess.run(
            [self.path / "bin" / program, *map(str, arguments)],
            cwd=folder,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``source``, a copy of the checkout, and what is built of it: a wheel, a source
    archive, and in ``editable`` the wheel of an editable install."""
    folder = tmp_path_factory.mktemp("built")
    source = copy_checkout(folder / "source")
    (source / "shards" / "train").mkdir()  # data that a user built there
    (source / "shards" / "train" / "train-000000.tar").write_bytes(b"data")
    (source / "shards" / "manifest.json").write_text("{}")
    code = (
        "from setuptools import build_meta\n"
        "build_meta.build_wheel('..')\n"
        "build_meta.build_sdist('..')\n"
        "build_meta.build_editable('../editable')\n"
    )
    (folder / "editable").mkdir()
    subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, check=True)
    return folder


def environment(folder: Path, wheel: Path) -> Environment:
    """A new environment with the wheel and, of this one, what the package needs."""
    venv.create(folder, with_pip=False)
    made = Environment(folder)
    # A folder named in a .pth file brings its packages, but not those that its own .pth files name.
    others = [path for path in sys.path if path and Path(path).resolve() != ROOT.resolve()]
    (made.site_packages / "others.pth").write_text("\n".join(others))
    command = [sys.executable, "-m", "pip", "--isolated", "--python", str(folder), "install"]
    subprocess.run(
        [*command, "--quiet", "--no-index", "--no-deps", "--ignore-installed", str(wheel)],
        capture_output=True,
        check=True,
    )
    return made


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    (wheel,) = built.glob("*.whl")
    return environment(tmp_path_factory.mktemp("installed") / "env", wheel)


@pytest.fixture(scope="module")
def editable(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    (wheel,) = (built / "editable").glob("*.whl")
    return environment(tmp_path_factory.mktemp("editable") / "env", wheel)


@pytest.fixture(scope="module")
def work(installed: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a set in ``shards/``, built by the wheel's commands."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "shards.py").write_text("raise SystemExit('the user's script was run')\n")
    (folder / "lists").mkdir()
    for split, names in {"train": "abcd", "test": "ef"}.items():
        for name in names:
            write_dot_recording(folder / "raw", name)
        (folder / "lists" / f"{split}.txt").write_text("\n".join(names))
    for arguments in (
        ("demo", "world", "--clips", 1),
        ("build-shards", "raw", "--out", "shards", "--splits", "lists", *FAST),
    ):
        status, text = installed.run(folder, "avprep", *arguments)
        assert status == 0, text
    return folder


def test_wheel_holds_every_module_and_no_data(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        there = {name for name in archive.namelist() if ".dist-info/" not in name}
    source = built / "source"
    expected = {
        path.relative_to(source).as_posix()
        for package in PACKAGES
        for path in (source / package).rglob("*.py")
    }
    assert "avtrain/evals/action/__init__.py" in expected
    page = {path.relative_to(source).as_posix() for path in (source / "avprep/view/page").iterdir()}
    assert "avprep/view/page/index.html" in page
    assert there == expected | page | {f"{package}/py.typed" for package in PACKAGES}


def test_source_archive_holds_tests_documentation_and_what_they_run_with(built: Path) -> None:
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        members = [member.name for member in archive.getmembers() if member.isfile()]
    there = {name.partition("/")[2] for name in members}
    expected = {
        path.relative_to(ROOT).as_posix()
        for place in (*FILES, *(f"{folder}/**/*" for folder in FOLDERS))
        for path in ROOT.glob(place)
        if path.is_file() and "__pycache__" not in path.parts
    }
    data = {path for path in expected if path.startswith("shards/") and not path.endswith(".py")}
    expected -= data - {"shards/py.typed"}
    assert {"Makefile", "constraints.txt", "tests/support/media.py", "docs/clip.png"} <= expected
    assert expected <= there
    assert there - expected <= {"PKG-INFO", "setup.cfg"} | {
        name for name in there if name.startswith("avsa360.egg-info/")
    }


def test_wheel_builds_trains_and_evaluates_without_the_checkout(
    installed: Environment, work: Path
) -> None:
    """In a folder with a script shards.py, which installed commands and their workers ignore."""
    small = ("--batch-size", 2, "--views", 2, "--device", "cpu", "--num-workers", 1)
    for arguments in (
        ("pretrain", "shards", "--steps", 1, "--out", "run", *small),
        ("eval", "retrieval", "shards", "--out", "run", "--checkpoint", "run/checkpoint.pt"),
    ):
        status, text = installed.run(work, "avtrain", *arguments)
        assert status == 0, text
    code = "import avprep.build.plan, avtrain, shards; print(avtrain.__file__, shards.__file__)"
    _, text = installed.run(work.parent, "python", "-c", code)
    assert text.count(str(installed.site_packages)) == 2, text


def test_editable_install_ignores_a_data_folder_named_shards(
    editable: Environment, work: Path, tmp_path: Path
) -> None:
    (tmp_path / "shards").symlink_to(work / "shards")
    status, text = editable.run(tmp_path, "python", "-m", "avprep", "info", "shards")
    assert status == 0, text
    status, text = editable.run(
        *(tmp_path, "python", *TORCHRUN, "avtrain", "pretrain", "shards", "--out", "run"),
        *("--steps", 1, "--batch-size", 4, "--views", 2, "--num-workers", 1),
    )
    assert status == 0, text
    assert (tmp_path / "run" / "checkpoint.pt").is_file()


def test_torchrun_names_a_script_that_hides_the_package(
    editable: Environment, tmp_path: Path
) -> None:
    (tmp_path / "shards.py").write_text("raise SystemExit('the user's script was run')\n")
    _, text = editable.run(tmp_path, "python", *TORCHRUN, "avtrain", "--version")
    assert f"Error: {tmp_path / 'shards.py'} hides the package `shards`" in text
    assert "script was run" not in text


@pytest.mark.parametrize("command", ["avprep", "avtrain"])
def test_another_distribution_named_shards_is_named(
    command: str, installed: Environment, editable: Environment, tmp_path: Path
) -> None:
    for there in (installed, editable):
        file = there.site_packages / "shards" / "__init__.py"
        before = file.read_text() if file.exists() else None
        file.parent.mkdir(exist_ok=True)
        file.write_text('"""Somebody else\'s."""\n__version__ = "3.1"\n')
        try:
            status, text = there.run(tmp_path, command, "--version")
        finally:
            if before is None:
                file.unlink()
            else:
                file.write_text(before)
        assert status == 2
        assert text.startswith(f"Error: {file} hides the package `shards` of avsa360")
        assert text.count("\n") == 1
        _, text = there.run(tmp_path, command, "--version")
        assert text == f"{command}, version {__version__}\n"
