"""Run the commands with the lowest versions that pyproject.toml declares, and with the newest.

    python -m tests.bounds --lowest python3.11 --newest python3.11 python3.13

Each environment is new and holds a wheel of this checkout with all extras, nothing else of it. The
lowest one has of each package the version behind ``>=``; the newest one whatever pip finds. Needs
the package index, and some GB for a moment where PyTorch comes with CUDA. The exit status is 1 if
anything fails.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import ROOT
from tests.support.package import copy_checkout

EXTRAS = ("prep", "train", "dask", "tensorboard", "remote")
STORE = "moto"
"""An S3 server on the loopback, from the extra ``test``, which `remote` is run against."""
LIMIT_S = 1800.0

_VERSIONS = """
import sys
from importlib.metadata import version
for package in sys.argv[1:]:
    print(package, version(package.partition("[")[0]))
"""
_DASK = """
from distributed import LocalCluster
from avprep.cli.main import main
with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
    main(["build-shards", "world", "--out", "from-dask", "--scheduler", cluster.scheduler_address,
        "--clip-duration", "5", "--views", "2"])
"""
_S3 = """
import os
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
os.environ |= {
    "AWS_ENDPOINT_URL": "http://%s:%s" % server.get_host_and_port(), "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1",
}
import s3fs
s3fs.S3FileSystem().mkdir("bucket")
from avprep.cli.main import main
arguments = ["build-shards", "world", "--out", "s3://bucket/set", "--clip-duration", "5"]
main([*arguments, "--views", "2"], standalone_mode=False)
main(["verify", "s3://bucket/set"])
"""
STEPS: dict[str, tuple[str, ...]] = {
    "avprep demo": ("avprep", "demo", "world", "--clips", "16"),
    "avprep build-shards": (
        *("avprep", "build-shards", "world", "--out", "set"),
        *("--clip-duration", "5", "--views", "4"),
    ),
    "avprep verify": ("avprep", "verify", "set"),
    "avprep preview": ("avprep", "preview", "set", "--raw", "world"),
    "build-shards, Dask": ("python", "-c", _DASK),
    "build-shards, S3": ("python", "-c", _S3),
    "avtrain pretrain": (
        *("avtrain", "pretrain", "set", "--out", "run", "--steps", "4", "--batch-size", "4"),
        *("--features", "logmel+intensity", "--num-workers", "1", "--report-to", "tensorboard"),
    ),
    "avtrain eval avsa": (
        *("avtrain", "eval", "avsa", "set", "--checkpoint", "run/checkpoint.pt", "--out", "run"),
        "--no-baseline",
    ),
    "avtrain report": ("avtrain", "report", "run", "--out", "report"),
}


@dataclass
class Outcome:
    """Versions in one environment and what each step came to there."""

    title: str
    versions: dict[str, str] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    passed: bool = False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lowest", nargs="*", default=[], metavar="PYTHON")
    parser.add_argument("--newest", nargs="*", default=[], metavar="PYTHON")
    arguments = parser.parse_args()
    bounds = declared_bounds((ROOT / "pyproject.toml").read_text())
    with tempfile.TemporaryDirectory(prefix="bounds-") as name:
        folder = Path(name)
        outcomes = []
        for python in arguments.lowest:
            pins = {package: f"=={lowest}" for package, lowest in bounds.items()}
            outcomes.append(try_out(folder, "lowest", python, pins))
        for python in arguments.newest:
            outcomes.append(try_out(folder, "newest", python, dict.fromkeys(bounds, "")))
    print(as_table(bounds, outcomes))
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def declared_bounds(pyproject: str) -> dict[str, str]:
    """Lowest version of each package that the commands need, by its name.

    Raises ValueError for a requirement without one.
    """
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *(one for name in EXTRAS for one in extras[name])]
    requirements += [one for one in extras["test"] if one.startswith(STORE)]
    found = {}
    for requirement in requirements:
        match = re.fullmatch(r"([\w.-]+(?:\[\w+\])?)>=([\w.]+)(?:,(?:<|!=)[\w.]+)*", requirement)
        if match is None:
            raise ValueError(f"{requirement} in pyproject.toml names no lowest version")
        found[match[1]] = match[2]
    return found


def try_out(folder: Path, title: str, python: str, pins: dict[str, str]) -> Outcome:
    """Install a new environment with ``python`` and run all steps in it."""
    number = run([python, "-c", "import platform; print(platform.python_version())"], folder)
    outcome = Outcome(f"{title}, Python {number.strip()}")
    place = Path(tempfile.mkdtemp(dir=folder))
    work = place / "work"
    work.mkdir()
    try:
        outcome.versions = install(place, python, pins)
        outcome.steps["install"] = "passed"
    except Failed as failed:
        outcome.steps["install"] = "FAILED"
        print(failed, file=sys.stderr)
        return outcome
    for name, (program, *rest) in STEPS.items():
        began = time.monotonic()
        try:
            run([str(place / "env" / "bin" / program), *rest], work)
            outcome.steps[name] = f"passed, {time.monotonic() - began:.0f} s"
        except Failed as failed:
            outcome.steps[name] = "FAILED"
            print(failed, file=sys.stderr)
        print(f"{outcome.title}: {name}: {outcome.steps[name]}", file=sys.stderr, flush=True)
    shutil.rmtree(place)  # before the next one, since PyTorch takes gigabytes
    outcome.passed = "FAILED" not in outcome.steps.values()
    return outcome


def install(place: Path, python: str, pins: dict[str, str]) -> dict[str, str]:
    """Install a wheel and what it needs into the new environment ``place/env``; gives versions."""
    run([python, "-m", "venv", str(place / "env")], place)
    python = str(place / "env" / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    source = copy_checkout(place / "source")
    run([*pip, "wheel", "--no-deps", "--wheel-dir", str(place), str(source)], place)
    shutil.rmtree(source)
    (wheel,) = place.glob("*.whl")
    requirements = [package + pin for package, pin in pins.items()]
    text = run([*pip, "install", f"{wheel}[{','.join(EXTRAS)}]", *requirements], place)
    if "yanked" in text:
        raise Failed(text[text.index("yanked") - 300 :][:600])
    versions = run([python, "-c", _VERSIONS, *pins], place)
    return dict(line.split(" ", 1) for line in versions.splitlines())


class Failed(Exception):
    """The end of what a command printed that failed."""


def run(command: list[str], folder: Path) -> str:
    """Run a command and return what it printed; raises Failed."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{command} took longer than {LIMIT_S:.0f} s") from None
    if done.returncode != 0:
        raise Failed(done.stdout[-3000:])
    return done.stdout


def as_table(bounds: dict[str, str], outcomes: list[Outcome]) -> str:
    """Versions and steps, one column an environment."""
    rows = [["", *(outcome.title for outcome in outcomes)]]
    for package, lowest in bounds.items():
        name = f"{package}>={lowest}"
        rows.append([name, *(outcome.versions.get(package, "-") for outcome in outcomes)])
    for step in ("install", *STEPS):
        rows.append([step, *(outcome.steps.get(step, "-") for outcome in outcomes)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main())
