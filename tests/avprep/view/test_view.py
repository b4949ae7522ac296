"""The command ``avprep view`` without a browser: what it serves, writes and refuses."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from click.testing import CliRunner, Result

from avprep.cli.main import main
from avprep.view import content as content_module
from avprep.view import page as page_module
from avprep.view.content import Content, Origin, describe_sample
from avprep.view.page import make_page
from avprep.view.server import HOST, PageServer
from shards.errors import ShardError
from shards.reader import ShardSet
from tests.support.media import write_dot_recording
from tests.support.tiny_set import change_members, damage, make_set


def view(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["view", *map(str, arguments)])


def refused(*arguments: object) -> str:
    """The one sentence with which the command refuses."""
    result = view(*arguments, "--no-browser")
    assert result.exit_code == 2, result.output
    lines = [line for line in result.output.splitlines() if line]
    assert len(lines) == 1, result.output
    return lines[0]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"), {"train": 2, "test": 1})


@pytest.fixture(scope="module")
def content(root: Path) -> Content:
    return describe_sample(ShardSet(root, "train"), 0, Origin())


@pytest.fixture
def server(content: Content) -> Iterator[PageServer]:
    made = PageServer(content)
    thread = Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def ask(
    server: PageServer, path: str, method: str = "GET", host: str = ""
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(HOST, server.server_port, timeout=20)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, dict(answer.headers)


def test_only_the_page_and_its_files_are_served_and_to_this_machine_only(
    server: PageServer, content: Content
) -> None:
    start = f"/{server.address.split('/')[3]}/"
    assert server.server_address[0] == "127.0.0.1"
    assert len(start) > 30, "a token that nobody guesses"
    status, page, headers = ask(server, start)
    assert (status, page) == (200, make_page(content))
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    status, file, headers = ask(server, f"{start}view00.mp4")
    assert (status, file) == (200, content.files["view00.mp4"])
    assert headers["Content-Type"] == "video/mp4"
    status, file, headers = ask(server, f"{start}view00.mp4", "HEAD")
    assert (status, file) == (200, b"")
    assert int(headers["Content-Length"]) == len(content.files["view00.mp4"])

    port = server.server_port
    for host in (f"localhost:{port}", f"127.0.0.1:{port + 1}", "localhost"):  # also by ssh -L
        assert ask(server, start, host=host)[0] == 200
    for host in ("example.org", f"example.org:{port}", "127.0.0.1.example.org", "localhost@x"):
        assert ask(server, start, host=host)[0] == 403
        assert ask(server, start, "HEAD", host=host)[0] == 403
    others = ("/", "/view00.mp4", start[:-1], f"{start}?", f"{start}nothing.mp4", "/etc/passwd")
    for path in (*others, f"{start}../view00.mp4", f"{start}..%2f..%2fetc/passwd"):
        assert ask(server, path)[0] == 404, path
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(server, start, method)[0] == 501


def test_tokens_differ(server: PageServer, content: Content) -> None:
    other = PageServer(content)
    assert other.address.split("/")[3] != server.address.split("/")[3]
    other.server_close()


def test_the_command_serves_until_it_is_told_to_end(root: Path) -> None:
    command = [sys.executable, "-m", "avprep", "view", str(root), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            found = re.search(r"http://127\.0\.0\.1:(\d+)(/\S+/)", line)
            assert found is not None, line
            assert f"ssh -L {found[1]}:127.0.0.1:{found[1]}" in process.stdout.readline().decode()
            taken = refused(root, "--port", found[1])
            assert f"port {found[1]} cannot be used" in taken
            connection = http.client.HTTPConnection(HOST, int(found[1]), timeout=20)
            connection.request("GET", found[2])
            assert connection.getresponse().status == 200
            process.send_signal(signal.SIGTERM)
            rest = process.stdout.read().decode()
            assert process.wait(20) == 0, rest
            assert rest == "ended\n"
        finally:
            process.kill()


def record_of(page: Path) -> dict[str, object]:
    text = page.read_text()
    found = re.search(r'<script type="application/json" id="sample">(.*?)</script>', text)
    assert found is not None
    record: dict[str, object] = json.loads(found[1])
    return record


def test_key_and_split_are_found_and_the_page_is_the_same_every_time(
    root: Path, tmp_path: Path
) -> None:
    pages = [tmp_path / "a.html", tmp_path / "b.html"]
    for page in pages:
        result = view(root, "test000", "--html", page)
        assert result.exit_code == 0, result.output
    assert pages[0].read_bytes() == pages[1].read_bytes()
    record = record_of(pages[0])
    assert record["key"] == "test000"
    assert record["files"]
    assert "has no sample 'x'; its keys are like 'train000'" in refused(root, "x")


def test_all_audio_layouts_are_shown(tmp_path: Path) -> None:
    """Each view's sound, with the matrix from its channels to the recording's field."""
    sets = {
        layout: make_set(tmp_path / layout, {"train": 1}, layout=layout, seed=3)
        for layout in ("rotated", "source")
    }
    fields = {}
    for layout, folder in sets.items():
        shards = ShardSet(folder, "train")
        record = describe_sample(shards, 0, Origin()).record
        for number, one in enumerate(record["views"]):
            stored, _ = shards.foa(0, 0, 4000, number)
            field = np.array(one["audio"]["matrix"]) @ stored
            first = fields.setdefault("first", field)
            assert np.abs(field - first).max() < 2e-4, (layout, number)


def test_mistakes_and_damage_are_one_sentence(root: Path, tmp_path: Path) -> None:
    recording = write_dot_recording(tmp_path, "dot", seconds=1.5)
    assert "ends at 1.5 s, before --start 7" in refused(recording, "--start", 7)
    assert "has no clip 'x'" in refused(recording, "x")
    for page in (recording, tmp_path / "dot.wav", tmp_path / "page"):
        before = recording.read_bytes()
        assert "must end in .html" in refused(recording, "--html", page)
        assert recording.read_bytes() == before
    assert "--start is for recordings" in refused(root, "--start", 0)
    assert "--foa-convention is for recordings" in refused(root, "--foa-convention", "fuma")
    assert "nothing does not exist; name a recording" in refused(tmp_path / "nothing")
    assert "no finished shard set" in refused(tmp_path)
    (tmp_path / "dot.wav").rename(tmp_path / "far.wav")
    assert "dot.mp4" in refused(recording)
    result = view(recording, "--sound", tmp_path / "far.wav", "--html", tmp_path / "far.html")
    assert result.exit_code == 0, result.output
    recording.write_bytes(recording.read_bytes()[:3000])
    assert "dot.mp4" in refused(recording, "--sound", tmp_path / "far.wav")
    for endings in ("mp4", "flac"):
        broken = make_set(tmp_path / endings, {"train": 1})
        key = damage(broken, 0, endings=endings)
        assert f"{key}.view0" in refused(broken)

    def without_a_view(members: dict[str, bytes]) -> dict[str, bytes]:
        del members["view01.mp4"]
        return members

    broken = make_set(tmp_path / "lacking", {"train": 1})
    change_members(broken, 0, without_a_view)
    assert "view01.mp4 is not in the shard's index" in refused(broken)


def test_pages_and_samples_that_are_too_large_are_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    monkeypatch.setattr(page_module, "_MOST_BYTES", 1_000_000)
    sentence = refused(root, "--html", page)
    assert "the page would have 2 MB" in sentence
    assert "--duration" in sentence
    assert not page.exists()
    monkeypatch.setattr(content_module, "_MOST_BYTES", 10_000)
    with pytest.raises(ShardError, match="more than a page can hold"):
        describe_sample(ShardSet(root, "train"), 0, Origin())


def test_a_panorama_is_served_as_it_is_stored(tmp_path: Path) -> None:
    write_dot_recording(tmp_path / "raw", "dot", seconds=1.0)
    built = CliRunner().invoke(
        main,
        [
            *("build-shards", str(tmp_path / "raw"), "--out", str(tmp_path / "set")),
            *("--views", "2", "--panorama", "64x32", "--workers", "1"),
        ],
    )
    assert built.exit_code == 0, built.output
    shards = ShardSet(tmp_path / "set", "train")
    content = describe_sample(shards, 0, Origin())
    assert content.files["panorama.mp4"] == shards.member(0, "panorama.mp4")
    assert content.record["notes"] == []
