"""Sets in an object store: a real S3 server on this machine, and no other host is contacted."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from avprep.build import lease
from avprep.build.locks import lock_output
from avprep.cli.main import main
from avprep.errors import UserError
from shards.folders import LocalFolder, open_folder
from shards.reader import ShardSet
from tests.support.media import FAST, build, contents, write_dot_recording
from tests.support.processes import children, lives
from tests.support.tiny_set import make_set

s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def store() -> Iterator[s3fs.S3FileSystem]:
    """A server with an empty bucket, and environment variables that point S3 to it."""
    server = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in {
            "ENDPOINT_URL": f"http://{host}:{port}",
            "ACCESS_KEY_ID": "nobody",
            "SECRET_ACCESS_KEY": "nothing",
            "DEFAULT_REGION": "us-east-1",
            "EC2_METADATA_DISABLED": "true",
            "CONFIG_FILE": os.devnull,
            "SHARED_CREDENTIALS_FILE": os.devnull,
        }.items():
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("NO_PROXY", "127.0.0.1")
        store = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
        store.mkdir("bucket")
        yield store
    server.stop()


@pytest.fixture
def quick_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.2)


def stored_hashes(store: s3fs.S3FileSystem, root: str) -> dict[str, str]:
    """The hash of every object in a set's folder, locks included."""
    return {
        path.removeprefix(f"{root}/"): hashlib.sha256(store.cat_file(path)).hexdigest()
        for path in sorted(store.find(root))
    }


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def start_build(raw: Path, out: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "avprep", "build-shards", raw, "--out", out, *FAST, *arguments]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def _steal_lock(store: s3fs.S3FileSystem, root: str, check: Callable[[], None]) -> None:
    for _ in range(300):
        for path in store.glob(f"{root}/.build.lock.*"):
            store.rm_file(path)
        time.sleep(0.1)
        check()


def _window(shards: ShardSet) -> tuple[np.ndarray, np.ndarray]:
    return shards.frames(3, 1, 5, 8), shards.foa(3, 12_345, 24_000, view=2)[0]


def test_a_set_in_a_bucket_has_the_bytes_of_a_local_one_and_reads_the_same(
    raw: Path, built: Path, store: s3fs.S3FileSystem, tmp_path: Path
) -> None:
    url = "s3://bucket/some/set"
    result = build(raw, "--out", f"{url}/", *FAST, "--workers", 2)
    assert result.exit_code == 0, result.output
    assert stored_hashes(store, "bucket/some/set") == contents(built)
    again = build(raw, "--out", url, *FAST, "--workers", 1)
    assert again.exit_code == 0, again.output
    assert f"{url} is already complete" in again.output

    infos = [json.loads(run("info", place, "--json").output) for place in (url, built)]
    assert [value.pop("root") for value in infos] == [url, str(built)]
    assert infos[0] == infos[1]
    verified = run("verify", url, "--workers", 1)
    assert verified.exit_code == 0, verified.output
    drawn = run("preview", url, "c-2", "--out", tmp_path / "clip.png")
    assert drawn.exit_code == 0, drawn.output
    assert (tmp_path / "clip.png").stat().st_size > 20_000

    local, remote = ShardSet(built), ShardSet(url)
    expected = _window(local)
    forked = ProcessPoolExecutor(1, get_context("fork"))
    spawned = ProcessPoolExecutor(1, get_context("spawn"))
    for windows in (
        _window(remote),
        spawned.submit(_window, remote).result(timeout=60),
        forked.submit(_window, remote).result(timeout=60),
    ):
        for here, expected_here in zip(windows, expected, strict=True):
            np.testing.assert_array_equal(here, expected_here)
    forked.shutdown()
    spawned.shutdown()
    for suffix in ("json", "view00.mp4", "view03.flac"):
        assert remote.member(7, suffix) == local.member(7, suffix)


def test_verify_finds_damage_in_a_bucket(built: Path, store: s3fs.S3FileSystem) -> None:
    store.put(f"{built}/", "bucket/damaged/", recursive=True)
    tar = "bucket/damaged/train/train-000002.tar"
    content = bytearray(store.cat_file(tar))
    content[5000] ^= 1
    store.pipe_file(tar, bytes(content))
    store.rm_file("bucket/damaged/train/train-000004.tar")
    store.pipe_file("bucket/damaged/train/other.tar", b"x")
    result = run("verify", "s3://bucket/damaged", "--quick", "--workers", 1)
    assert result.exit_code == 1
    assert "train/train-000002.tar: has changed since it was written" in result.output
    assert "train/train-000004.tar: cannot be read: No such file" in result.output
    assert "train/other.tar: is not in the manifest" in result.output
    assert "3 faults" in result.output


@pytest.mark.usefixtures("quick_locks")
def test_the_same_command_finishes_a_killed_build_into_a_bucket(
    raw: Path,
    built: Path,
    store: s3fs.S3FileSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = "s3://bucket/killed"
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    killed = start_build(raw, url, "--workers", 1)
    deadline = time.monotonic() + 60
    while not store.glob("bucket/killed/train/*.index.json") and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = children(killed.pid)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    while any(map(lives, workers)):
        assert time.monotonic() < deadline, "its workers end with it"
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == [], "no partial shard is left on this machine"
    stamps = {path: store.modified(path) for path in store.glob("bucket/killed/train/*.tar")}
    assert stamps
    assert store.glob("bucket/killed/.build.lock.*"), "the lock outlives its holder"
    assert not store.exists("bucket/killed/manifest.json")
    unfinished = run("info", url)
    assert unfinished.exit_code == 2
    assert "of 8 shards are written" in unfinished.output
    done = {path.replace(".index.json", ".tar") for path in store.glob("bucket/killed/train/*.js*")}
    assert done <= stamps.keys(), "an index comes after its tar"
    monkeypatch.setattr(lease, "LIFE_S", 2.0)
    result = build(raw, "--out", url, *FAST, "--workers", 1)
    assert result.exit_code == 0, result.output
    assert stored_hashes(store, "bucket/killed") == contents(built)
    for path in done:
        assert store.modified(path) == stamps[path], "finished shards are kept"


@pytest.mark.usefixtures("quick_locks")
def test_a_second_build_into_the_same_bucket_is_refused(
    raw: Path, store: s3fs.S3FileSystem
) -> None:
    out = open_folder("s3://bucket/locked")
    with lock_output(out, None) as check:
        for arguments in ((), ("--task-index", 0, "--task-count", 2)):
            second = build(raw, "--out", out, *FAST, "--workers", 1, *arguments)
            assert second.exit_code == 2
            assert "another build is running in s3://bucket/locked" in second.output
        check()
        with pytest.raises(UserError, match="disconnected from s3://bucket/locked"):
            _steal_lock(store, "bucket/locked", check)
    assert store.find("bucket/locked") == []


@pytest.mark.usefixtures("quick_locks", "store")
def test_a_lock_is_held_by_one_thread_at_a_time() -> None:
    out = open_folder("s3://bucket/crowd")
    inside, counts = 0, []

    def enter() -> None:
        nonlocal inside
        with lease.lease(out, "end", ("end.",), "here", wait=True):
            inside += 1
            counts.append(inside)
            time.sleep(0.1)
            inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [1, 1, 1, 1]


def test_a_job_array_builds_into_a_bucket(raw: Path, built: Path, store: s3fs.S3FileSystem) -> None:
    url = "s3://bucket/array"
    tasks = [
        start_build(raw, url, "--workers", 1, "--task-index", index, "--task-count", 2)
        for index in (0, 1)
    ]
    outputs = [task.communicate() for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], outputs
    assert stored_hashes(store, "bucket/array") == contents(built)
    merged = run("merge", url)
    assert merged.exit_code == 0
    assert "already complete" in merged.output


def test_append_works_in_a_bucket_as_in_a_folder(
    raw: Path, built: Path, store: s3fs.S3FileSystem, tmp_path: Path
) -> None:
    more, local = tmp_path / "raw", tmp_path / "set"
    subprocess.run(["cp", "-r", str(raw), str(more)], check=True)
    subprocess.run(["cp", "-r", str(built), str(local)], check=True)
    store.put(f"{built}/", "bucket/grown/", recursive=True)
    write_dot_recording(more, "e", seconds=2.0)
    (more / "broken.mp4").write_bytes(b"nothing")
    for out in (local, "s3://bucket/grown"):
        result = build(more, "--out", out, *FAST, "--append", "--workers", 1)
        assert result.exit_code == 1, result.output
        assert f"{out}/failures.jsonl says why" in result.output
    assert stored_hashes(store, "bucket/grown") == contents(local)


def test_training_from_a_bucket_gives_the_same_losses(
    store: s3fs.S3FileSystem, tmp_path: Path
) -> None:
    from avtrain.cli.main import main as avtrain

    local = make_set(tmp_path / "set", {"train": 4}, views=2)
    store.put(f"{local}/", "bucket/trained/", recursive=True)
    losses, reads = [], []
    for place, run_name in ((local, "here"), ("s3://bucket/trained", "there")):
        out = tmp_path / run_name
        start = ["pretrain", str(place), "--out", str(out), "--batch-size", "2", "--views", "2"]
        result = CliRunner().invoke(avtrain, [*start, "--steps", "2", "--num-workers", "1"])
        assert result.exit_code == 0, result.output
        lines = (out / "log.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
        result = CliRunner().invoke(avtrain, [*start, "--dry-run", "--epochs", "9"])
        assert result.exit_code == 0, result.output
        reads += re.findall(r"a step reads: (.* reads)", result.output)
    assert losses[0] == losses[1]
    assert reads[0] == reads[1]


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("avprep", ["build-shards", "RAW", "--out", "s3://nowhere/set"]),
        ("avprep", ["info", "s3://nowhere/set"]),
        ("avprep", ["verify", "s3://nowhere/set"]),
        ("avtrain", ["pretrain", "s3://nowhere/set"]),
        (
            "avtrain",
            ["eval", "avsa", "s3://nowhere/set", "--checkpoint", "untrained", "--out", "x"],
        ),
    ],
)
@pytest.mark.usefixtures("store")
def test_a_missing_bucket_is_reported_in_one_sentence(
    raw: Path, program: str, arguments: list[str]
) -> None:
    import importlib

    command = importlib.import_module(f"{program}.cli.main").main
    words = [str(raw) if word == "RAW" else word for word in arguments]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 2
    (sentence,) = [line for line in result.output.splitlines() if line]
    assert sentence.startswith("Error: s3://nowhere/set")
    assert "The specified bucket does not exist" in sentence


@pytest.mark.parametrize(
    ("prelude", "place", "sentence"),
    [
        ("sys.modules['s3fs'] = None", "s3://b/set", "needs s3fs; `pip install 'avsa360[remote]'`"),
        ("sys.modules['gcsfs'] = None", "gs://b/s", "needs gcsfs; `pip install 'avsa360[gs]'`"),
        ("sys.modules['adlfs'] = None", "az://b/s", "needs adlfs; `pip install 'avsa360[az]'`"),
        (
            "sys.modules['huggingface_hub'] = None",
            "hf://datasets/o/n",
            "needs huggingface_hub; `pip install 'avsa360[hf]'`",
        ),
        ("sys.modules['fsspec'] = None", "s3://b/set", "`pip install 'avsa360[remote]'` brings it"),
        ("del os.environ['AWS_ACCESS_KEY_ID']", "s3://b/set", "Unable to locate credentials"),
        ("pass", "nothing://b/set", "Protocol not known: nothing"),
        ("pass", "s3://", "names no bucket"),
    ],
)
@pytest.mark.usefixtures("store")
def test_missing_packages_and_credentials_are_reported_in_one_sentence(
    prelude: str, place: str, sentence: str
) -> None:
    code = f"import os, sys; {prelude}; from avprep.cli.main import main; main(['info', {place!r}])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_urls_and_local_paths_are_told_apart(tmp_path: Path) -> None:
    assert isinstance(open_folder(f"file://{tmp_path}"), LocalFolder)
    assert str(open_folder(f"file://{tmp_path}")) == str(tmp_path)
    assert isinstance(open_folder("a/b://c"), LocalFolder)
    assert isinstance(open_folder(Path("s3://bucket")), LocalFolder)
