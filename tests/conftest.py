"""Sets that several test files build on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before PyTorch is imported, here and in child processes: the tests' networks are too small for
# more, and threads that wait for each other on a busy machine take many times as long.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["WANDB_MODE"] = "offline"  # whoever runs the tests may have a login

from tests.support.media import DIRECTIONS, FAST, build, write_dot_recording

# On a busy machine an example may take any time.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


FIRST = ("test_kills.py", "test_fuzz.py", "test_root.py", "test_package.py", "test_ends.py")
"""Files of few tests that take long: at the end, one worker would wait for another."""


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, "loadscopereorder"):  # pytest-xdist: it begins with many tests
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in FIRST)


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for name, direction in DIRECTIONS.items():
        write_dot_recording(folder, name, *direction, seconds=4.0)
    return folder


@pytest.fixture(scope="session")
def built(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of `raw`: eight shards of one clip each. Not to be changed."""
    out = tmp_path_factory.mktemp("set") / "shards"
    result = build(raw, "--out", out, *FAST, "--workers", 1)
    assert result.exit_code == 0, result.output
    return out
