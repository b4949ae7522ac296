"""A set that several versions of ffmpeg or of this program make says so, and names them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from avprep.build.versions import describe_versions, joined_versions
from avprep.cli.main import main
from avprep.media.ffmpeg import ffmpeg_path
from avprep.media.find_ffmpeg import find_ffmpeg
from shards import __version__
from tests.support.media import write_dot_recording

FAST = ["--clip-duration", "2", "--views", "2", "--audio-layout", "source", "--workers", "1"]


class Versions:
    """Builds with an ffmpeg that states a version of its own, and does what the real one does."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._monkeypatch = folder, monkeypatch
        self.real = ffmpeg_path()

    def build(self, version: str, *options: object) -> Result:
        fake = self._folder / f"ffmpeg-{version}"
        fake.write_text(
            f'#!/bin/sh\ncase "$*" in *-version) echo "ffmpeg version {version} (c)"; exit 0;; '
            f'esac\nexec "{self.real}" "$@"\n'
        )
        fake.chmod(0o755)
        self._monkeypatch.setenv("AVPREP_FFMPEG", str(fake))
        find_ffmpeg.cache_clear()
        raw, out = self._folder / "raw", self._folder / "set"
        command = ["build-shards", str(raw), "--out", str(out), *FAST, *map(str, options)]
        return CliRunner().invoke(main, command)

    @property
    def manifest(self) -> dict[str, str]:
        value = json.loads((self._folder / "set" / "manifest.json").read_bytes())
        versions: dict[str, str] = value["versions"]
        return versions


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Versions]:
    for name in "ab":
        write_dot_recording(tmp_path / "raw", name)
    find_ffmpeg.cache_clear()
    yield Versions(tmp_path, monkeypatch)
    find_ffmpeg.cache_clear()


def other_versions(result: Result) -> list[str]:
    """The lines that say that other versions continue a set."""
    return [line for line in result.output.splitlines() if "other versions" in line]


def test_a_build_that_another_version_finishes_says_so(versions: Versions, tmp_path: Path) -> None:
    first = versions.build("6.1", "--task-index", 0, "--task-count", 2)
    assert (first.exit_code, other_versions(first)) == (0, []), first.output
    same = versions.build("6.1", "--task-index", 0, "--task-count", 2)
    assert other_versions(same) == []
    state = json.loads((tmp_path / "set" / ".build.json").read_bytes())
    assert state["versions"]["ffmpeg"] == "6.1"
    last = versions.build("7.0", "--task-index", 1, "--task-count", 2)
    assert last.exit_code == 0
    said = "is continued by other versions (ffmpeg 6.1 before, 7.0 now); its clips may differ"
    assert [said in line for line in other_versions(last)] == [True]
    assert other_versions(last)[0].startswith("check: ")
    assert versions.manifest["ffmpeg"] == "6.1 and 7.0"
    assert versions.manifest["avprep"] == __version__
    again = versions.build("7.1")
    assert "is already complete" in again.output
    assert other_versions(again) == [], "nothing was made"
    # A shard that is made again.
    next((tmp_path / "set" / "train").glob("*.tar")).unlink()
    repaired = versions.build("7.1")
    assert "(ffmpeg 6.1 and 7.0 before, 7.1 now)" in repaired.output
    assert versions.manifest["ffmpeg"] == "6.1 and 7.0 and 7.1"


def test_an_append_by_another_version_says_so(versions: Versions, tmp_path: Path) -> None:
    assert versions.build("6.1").exit_code == 0
    assert versions.manifest["ffmpeg"] == "6.1"
    write_dot_recording(tmp_path / "raw", "c")
    added = versions.build("7.0", "--append")
    assert "(ffmpeg 6.1 before, 7.0 now)" in added.output
    assert versions.manifest["ffmpeg"] == "6.1 and 7.0"
    write_dot_recording(tmp_path / "raw", "d")
    known = versions.build("6.1", "--append")
    assert other_versions(known) == [], "the manifest names it already"
    assert versions.manifest["ffmpeg"] == "6.1 and 7.0"


def test_a_merge_by_another_version_says_so(versions: Versions, tmp_path: Path) -> None:
    out = tmp_path / "set"
    versions.build("6.1", "--task-index", 0, "--task-count", 2)
    state = json.loads((out / ".build.json").read_bytes())
    assert versions.build("6.1", "--task-index", 1, "--task-count", 2).exit_code == 0
    for avprep, sentences in ((__version__, 0), ("0.0.1", 1)):
        (out / "manifest.json").unlink()
        state["versions"]["avprep"] = avprep
        (out / ".build.json").write_text(json.dumps(state))
        merged = CliRunner().invoke(main, ["merge", str(out)])
        assert merged.exit_code == 0, merged.output
        assert len(other_versions(merged)) == sentences
    assert f"(avprep 0.0.1 before, {__version__} now)" in merged.output
    assert versions.manifest == {
        **state["versions"],
        "avprep": f"0.0.1 and {__version__}",
    }


def test_versions_are_joined_once() -> None:
    one, two = {"ffmpeg": "6.1", "av": "18.0"}, {"ffmpeg": "7.0", "av": "18.0"}
    both = {"ffmpeg": "6.1 and 7.0", "av": "18.0"}
    assert joined_versions(one, two) == both
    assert joined_versions(both, one) == joined_versions(both, two) == both
    assert joined_versions(one, one) == joined_versions({}, one) == one
    assert describe_versions("set", both, two) is None
    assert describe_versions("set", {}, two) is None
