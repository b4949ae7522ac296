"""Real recordings, in the folder that the variable ``AVPREP_REAL_DATA`` names."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from avprep.cli.main import main
from avprep.foa.ambix import to_ambix
from avprep.foa.energy_map import loudest_direction
from shards.geometry import angle_between_deg, rotate_foa, unit_vector
from shards.reader import ShardSet
from tests.support import ROOT
from tests.support.media import write_audio

REAL = Path(os.environ.get("AVPREP_REAL_DATA", ROOT.parent / "shared" / "data"))
GUITAR_AMPLIFIER_AZIMUTH_DEG = -24.8

pytestmark = pytest.mark.skipif(
    not (REAL / "yt360").is_dir(), reason=f"no real recordings in {REAL}; set AVPREP_REAL_DATA"
)


def build(*arguments: object) -> None:
    result = CliRunner().invoke(main, ["build-shards", *map(str, arguments)])
    assert result.exit_code == 0, result.output


def test_the_loudest_sound_of_the_yt360_clip_comes_from_where_it_is_seen(tmp_path: Path) -> None:
    build(REAL / "yt360", "--layout", "yt360", "--out", tmp_path / "set")
    shards = ShardSet(tmp_path / "set")
    info = shards.info(0)
    assert (shards.keys, shards.sources) == (["kqAZkf5Odyw-80"], ["kqAZkf5Odyw"])
    assert (info.start_s, info.duration_s, len(info.views)) == (80, 10, 8)
    centres = unit_vector(
        [view.azimuth_deg for view in info.views], [view.elevation_deg for view in info.views]
    )
    arcs = angle_between_deg(centres[:, None], centres[None])
    assert arcs[~np.eye(8, dtype=bool)].min() >= 36
    sound, matrix = shards.foa(0, 0, info.audio.samples, view=3)
    direction = loudest_direction(rotate_foa(sound, matrix.T), info.audio.sample_rate)
    assert direction is not None
    assert abs(direction[0] - GUITAR_AMPLIFIER_AZIMUTH_DEG) < 10
    assert abs(direction[1]) < 15


def test_a_view_of_the_amplifier_hears_it_in_front(tmp_path: Path) -> None:
    views = [{"azimuth_deg": GUITAR_AMPLIFIER_AZIMUTH_DEG, "elevation_deg": 8, "hfov_deg": 60}]
    (tmp_path / "views.json").write_text(json.dumps(views))
    build(REAL / "yt360", "--out", tmp_path / "set", "--viewpoints", tmp_path / "views.json")
    sound, _ = ShardSet(tmp_path / "set").foa(0, 0, 240_000, view=0)
    direction = loudest_direction(sound, 24_000)
    assert direction is not None
    assert angle_between_deg(unit_vector(*direction), unit_vector(0, 0)) < 10


def test_stereo_inside_the_video_is_not_read_as_ambisonics(tmp_path: Path) -> None:
    """Without the audio folder, the clip's own two channels are refused."""
    (tmp_path / "raw").mkdir()
    shutil.copy(REAL / "yt360" / "video" / "kqAZkf5Odyw-80.mp4", tmp_path / "raw")
    arguments = ["build-shards", str(tmp_path / "raw"), "--out", str(tmp_path / "set")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "its sound has 2 channels" in result.output


@pytest.mark.parametrize("suffix", ["m4a", "opus", "ogg", "flac", "wav"])
def test_audio_files_of_every_format(suffix: str, tmp_path: Path) -> None:
    """The clip's ambisonics, as four channels in each format, gives the same direction."""
    raw = tmp_path / "raw"
    raw.mkdir()
    shutil.copy(REAL / "yt360" / "video" / "kqAZkf5Odyw-80.mp4", raw / "clip.mp4")
    with av.open(str(REAL / "yt360" / "audio" / "kqAZkf5Odyw-80.m4a")) as container:
        parts = [frame.to_ndarray() for frame in container.decode(audio=0)]
    foa = np.ascontiguousarray(to_ambix(np.concatenate(parts, axis=1), "auto"))
    path = raw / f"clip.{suffix}"
    if suffix in ("m4a", "opus"):
        # Opus as on YouTube: channel mapping family 2, ambisonics.
        opus = suffix == "opus"
        layout, options = ("ambisonic 1", {"mapping_family": "2"}) if opus else ("quad", {})
        write_audio(path, "libopus" if opus else "aac", foa, layout, options)
    else:
        subtype = "VORBIS" if suffix == "ogg" else "PCM_16"
        soundfile.write(path, foa.T, 48000, subtype=subtype)
    build(raw, "--out", tmp_path / "set", "--views", 1, "--audio-layout", "source")
    sound, _ = ShardSet(tmp_path / "set").foa(0, 0, 240_000)
    direction = loudest_direction(sound, 24_000)
    assert direction is not None
    assert angle_between_deg(unit_vector(*direction), unit_vector(-24.5, 8.5)) < 4


def test_inspect_describes_every_file_correctly() -> None:
    result = CliRunner().invoke(main, ["inspect", str(REAL), "--json"])
    assert result.exit_code == 0, result.output
    by_name = {Path(found["file"]).name: found for found in json.loads(result.stdout)}
    video = by_name["kqAZkf5Odyw-80.mp4"]
    assert (video["video"]["projection"], video["video"]["stereo"]) == ("equirect", "mono")
    assert (video["video"]["width"], video["video"]["height"]) == (640, 360)
    assert video["video"]["confidence"] > 0.5
    assert Path(video["audio"]["replaced_by"]).name == "kqAZkf5Odyw-80.m4a"
    assert video["suspicious"] == []
    youtube = by_name["kqAZkf5Odyw-80.m4a"]["audio"]
    assert (youtube["convention"], youtube["channels"], youtube["sample_rate"]) == (
        *("youtube", 6),
        48_000,
    )
    assert youtube["spatiality"] > 0.2
    # FuMa, and read as ambiX unless the user says otherwise: low confidence, and the reason.
    speech = by_name["4ch_B_FuMaNorm_FuMaOrd_speech.mp4"]
    assert speech["audio"]["confidence"] < 0.1
    assert "it sounds like FuMa, W in channel 0" in speech["suspicious"][0]
    assert by_name["BF_rec1.ogg"]["audio"]["confidence"] < 0.5
    assert "neither its container nor its sound is clear" in by_name["BF_rec1.ogg"]["suspicious"][0]
    third = by_name["3oa_example_ch0-ch7.wav"]
    assert third["audio"]["heard"].startswith("its first four: SN3D, W in channel 0")
    assert "8 channels, which is no full order of ambisonics" in third["suspicious"][0]


def test_real_files_sound_right_once_their_convention_is_named() -> None:
    def named(name: str, convention: str) -> dict[str, Any]:
        arguments = ["inspect", str(REAL / "foa" / name), "--json", "--foa-convention", convention]
        (found,) = json.loads(CliRunner().invoke(main, arguments).stdout)
        return dict(found)

    speech = named("4ch_B_FuMaNorm_FuMaOrd_speech.mp4", "fuma")
    assert speech["audio"]["heard"].startswith("SN3D, W in channel 0")
    assert speech["suspicious"] == []
    single = named("3oa_example_ch0-ch7.wav", "ambix")  # one source, in front
    assert single["audio"]["spatiality"] < 0.01
    assert "it is mono, or a single sound" in single["suspicious"][0]
