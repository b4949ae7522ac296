"""How much of an official list is in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from avprep.cli.main import main
from avprep.look.official_list import parse_entry, read_official_lists
from tests.support.known_truth import dot_frame, plane_wave
from tests.support.media import write_audio, write_video, write_wav

FRAME = dot_frame(height=80, width=160, sigma_deg=6)


def coverage(raw: Path, *options: object) -> Result:
    arguments = ["coverage", str(raw), "--workers", "1", *map(str, options)]
    return CliRunner().invoke(main, arguments)


def answer(raw: Path, *options: object) -> dict[str, Any]:
    result = coverage(raw, "--json", *options)
    assert result.exit_code == 0, result.output
    value: dict[str, Any] = json.loads(result.stdout)
    return value


def write(path: Path, seconds: float = 1.0, channels: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = {4: "quad", 2: "stereo"}.get(channels, "mono")
    audio = plane_wave(seconds=seconds)[:channels] if channels else None
    write_video(path.with_suffix(".mkv"), [FRAME] * round(8 * seconds), 8, audio, layout)
    path.with_suffix(".mkv").rename(path)


@pytest.fixture(scope="module")
def yt360(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of kqAZkf5Odyw: 80 can be used, 90 has stereo, 100 no sound file, 110 is broken."""
    raw = tmp_path_factory.mktemp("yt360")
    (raw / "audio").mkdir()
    for second in (80, 90, 100, 110):
        write(raw / f"video/kqAZkf5Odyw-{second}.mp4", channels=2)
    write(raw / "video/-bcDEF_1234-5.mp4", channels=2)
    write(raw / "video/zzzzzzzzzzz-5.mp4", channels=2)
    w, y, z, x = plane_wave(seconds=1.0)
    six = np.stack([x, y, w, 0 * w, z, 0 * w])
    for name in ("kqAZkf5Odyw-80", "-bcDEF_1234-5", "zzzzzzzzzzz-5"):
        write_audio(raw / f"audio/{name}.m4a", "aac", six, "5.1")
    write_audio(raw / "audio/kqAZkf5Odyw-90.m4a", "aac", six[:2], "stereo")
    (raw / "audio/kqAZkf5Odyw-110.m4a").write_bytes(b"broken")
    return raw


def test_clips_and_recordings_of_yt360_are_counted_by_reason(yt360: Path, tmp_path: Path) -> None:
    lists = tmp_path / "segments.txt"
    lists.write_text("kqAZkf5Odyw 80,90,100,110,120\n-bcDEF_1234 5\nabcdefghijk 7,17\n")
    result = coverage(yt360, "--against", lists, "--missing", tmp_path / "missing.txt")
    assert result.exit_code == 0, result.output
    table = {line[:-24].strip(): line[-24:].split() for line in result.stdout.splitlines()[:-1]}
    assert table == {
        "": ["recordings", "clips"],
        "listed": ["3", "8"],
        "usable": ["2", "2"],
        "sound without ambisonics": ["0", "1"],
        "no sound": ["0", "1"],
        "does not open": ["0", "1"],
        "missing": ["1", "3"],
    }
    assert result.stdout.splitlines()[-1] == "in the folder, but not listed: 1"
    assert (tmp_path / "missing.txt").read_text() == "kqAZkf5Odyw\nabcdefghijk\n"
    found = answer(yt360, "--against", lists)
    assert found["layout"] == "yt360"
    assert [(item["start_s"], item["reason"]) for item in found["unusable"]] == [
        (90, "sound without ambisonics"),
        (100, "no sound"),
        (110, "does not open"),
    ]
    assert "2 channels" in found["unusable"][0]["detail"]
    assert found["missing"] == ["kqAZkf5Odyw", "abcdefghijk"]


def test_lists_of_ids_count_recordings_alone(yt360: Path, tmp_path: Path) -> None:
    for name, ids in (("train", "kqAZkf5Odyw\nabcdefghijk\n"), ("test", "zzzzzzzzzzz\n")):
        (tmp_path / f"{name}.txt").write_text(ids)
    lists = ("--against", tmp_path / "train.txt", "--against", tmp_path / "test.txt")
    found = answer(yt360, *lists)
    assert found["recordings"] == {"listed": 3, "usable": 2, "missing": 1, "unusable": {}}
    assert found["clips"] is None
    assert found["not_listed"] == 1


def test_downloads_are_found_by_their_ids_and_hold_their_clips(tmp_path: Path) -> None:
    """In brackets, as yt-dlp names them; as the whole name; or in .info.json."""
    raw = tmp_path / "raw"
    write(raw / "A walk [aaaaaaaaaaa].mkv", seconds=2)
    write(raw / "bbbbbbbbbbb.MKV", seconds=2)
    write(raw / "renamed.mkv", seconds=2)
    (raw / "renamed.info.json").write_text('{"id": "ccccccccccc", "format_note": "equi"}')
    write(raw / "flat [ddddddddddd].mkv", channels=0)
    write(raw / "mono [eeeeeeeeeee].mkv", channels=1)
    (raw / "lost [fffffffffff].mp4").write_bytes(b"x")
    (raw / "GS010001.360").write_bytes(b"x")
    write_wav(raw / "two [ggggggggggg].wav", plane_wave(seconds=1.0))
    write_video(raw / "two [ggggggggggg].mp4", [FRAME] * 8, 8)
    lists = tmp_path / "clips.csv"
    names = ("a_0", "a_1", "a_7", "b_1", "c_0", "d_0", "e_0", "f_0", "g_0", "h_0")
    rows = [f"{name[0] * 11}{name[1:]}.npy" for name in names]
    lists.write_text("\n".join(["file_path", *rows]))
    result = coverage(raw, "--against", lists, "--json")
    assert result.exit_code == 0, result.output
    assert "not read: 1 x .360" in result.stderr
    found = json.loads(result.stdout)
    assert found["recordings"] == {
        **{"listed": 8, "usable": 4, "missing": 1},
        "unusable": {"no sound": 1, "sound without ambisonics": 1, "does not open": 1},
    }
    assert found["clips"]["usable"] == 5
    assert found["clips"]["unusable"]["ends before the listed second"] == 1
    assert found["missing"] == ["h" * 11]


def test_an_empty_folder_has_nothing_and_a_wrong_one_is_an_error(tmp_path: Path) -> None:
    lists = tmp_path / "ids.txt"
    lists.write_text("# of a list\nabcdefghijk\n\n")
    (tmp_path / "raw").mkdir()
    assert answer(tmp_path / "raw", "--against", lists)["missing"] == ["abcdefghijk"]
    assert coverage(tmp_path / "nowhere", "--against", lists).exit_code == 2
    for content, why in (("id\n", "lists no id"), ("a,b\n1,2\n", "no column of ids")):
        (tmp_path / "bad.csv").write_text(content)
        result = coverage(tmp_path / "raw", "--against", tmp_path / "bad.csv")
        assert (result.exit_code, why in result.output) == (2, True)
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    assert coverage(tmp_path / "raw", "--against", tmp_path / "bad.txt").exit_code == 2


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("-oytwMeyR74", ("-oytwMeyR74", None)),
        ("abcdefgh-12", ("abcdefgh-12", None)),
        ("abcdefgh-12-80", ("abcdefgh-12", 80.0)),
        ("TKPZf_P5_18_30", ("TKPZf_P5_18", 30.0)),
        ("b2VhNUmUV3k_52.npy", ("b2VhNUmUV3k", 52.0)),
        ("clips/b2VhNUmUV3k_52.5.mp4", ("b2VhNUmUV3k", 52.5)),
        ("-bcDEF_1234_000010_000020", ("-bcDEF_1234", 10.0)),
        ("https://www.youtube.com/watch?v=-bcDEF_1234&t=5", ("-bcDEF_1234", None)),
        ("https://youtu.be/-bcDEF_1234", ("-bcDEF_1234", None)),
        ("day 2/A walk [-bcDEF_1234].f313.webm", ("-bcDEF_1234", None)),
        ("concert", ("concert", None)),
    ],
)
def test_lines_of_lists(line: str, entry: tuple[str, float | None]) -> None:
    assert parse_entry(line) == entry


def test_long_lists_are_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "yt_ambigen.csv"
    names = [f"{number:011d}_{second}" for number in range(9000) for second in range(10)]
    path.write_text("\n".join(["id", *names]))
    listed = read_official_lists([path])
    assert (len(listed.starts), listed.clips) == (9000, 90000)
    (tmp_path / "vgg.csv").write_text('---g-f_I2yQ,1,"people, marching",train\n')
    assert read_official_lists([tmp_path / "vgg.csv"]).starts == {"---g-f_I2yQ": (1.0,)}
