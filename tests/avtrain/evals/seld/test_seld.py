"""``avtrain eval seld`` as a whole: from STARSS's files to DCASE's, its learning, and resuming."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from avtrain.cli.evals.seld import seld
from avtrain.cli.main import main
from avtrain.config import Config, tiny
from avtrain.errors import TrainingError
from avtrain.evals.evaluation import EvaluationOptions
from avtrain.evals.progress import Progress
from avtrain.evals.results import Result
from avtrain.evals.seld import protocol
from avtrain.evals.seld.detections import Detection, Detections, read_dcase
from avtrain.evals.seld.evaluate import (
    FIGURE,
    SeldOptions,
    _write_estimates,
    evaluate_seld,
    seld_metrics,
)
from avtrain.evals.seld.metrics import Counts, Definition, count, scores_by_class
from avtrain.evals.seld.train import Recording
from avtrain.options import with_options
from shards.geometry import encode_foa, unit_vector
from tests.support.media import build, dot_plane, grey_frame, noise, write_video, write_wav
from tests.support.tiny_set import damage, make_set

FAST = ["--steps", "4", "--num-workers", "0", "--device", "cpu"]


def seld_config(features: str = "logmel+intensity") -> Config:
    return with_options(tiny("avsa"), features=features)


def common(root: Path, out: Path, energy: bool = False) -> EvaluationOptions:
    return EvaluationOptions(str(root), seld_config(), out, device="cpu", workers=0, energy=energy)


def options(shares: tuple[float, ...] = (1.0,), **changes: Any) -> SeldOptions:
    inputs = changes.pop("inputs", "audio")
    quick = {"steps": 4, "saves": 4, "batch_size": 4, "window_frames": 10, "hidden": 16}
    plan = protocol.tiny(inputs, changes.pop("probe", False), changes.pop("definition", "2024"))
    return SeldOptions(replace(plan, **quick | changes), shares, views=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    return make_set(folder, {"train": 12, "test": 6}, views=2, labelled=True)


def write_starss(raw: Path) -> dict[str, list[str]]:
    """Four recordings of 4 s in STARSS23's layout: in each, a noise in front from 0.5 s on, and one
    at the left from 2 s on. Returns the label files of the test by name."""
    frame = grey_frame(dot_plane(64, 128, 0, 0, 8))
    labels = {}
    for part, number in (("train-sony", 1), ("train-tau", 2), ("test-sony", 3), ("test-tau", 4)):
        name = f"fold{3 + number // 3}_room{number}_mix001"
        for kind in ("foa", "video", "metadata"):
            (raw / f"{kind}_dev" / f"dev-{part}").mkdir(parents=True)
        active = np.arange(4 * 24_000) / 24_000
        front = noise(4, number, 24_000) * (active >= 0.5)
        left = noise(4, number + 9, 24_000) * (active >= 2.0)
        field = encode_foa(front, unit_vector(5 * number, 10))
        field += encode_foa(left, unit_vector(90, -20 + number))
        write_wav(raw / f"foa_dev/dev-{part}/{name}.wav", field, 24_000)
        write_video(raw / f"video_dev/dev-{part}/{name}.mp4", [frame] * 32, 8)
        rows = [f"{f},0,0,{5 * number},10,{100 + f}" for f in range(5, 40)]
        rows += [f"{f},8,1,90,{-20 + number},250" for f in range(20, 40)]
        (raw / f"metadata_dev/dev-{part}/{name}.csv").write_text("\n".join(rows) + "\n")
        if "test" in part:
            labels[name] = rows
    return labels


def test_from_files_of_starss_to_files_that_dcase_scores(tmp_path: Path) -> None:
    labels = write_starss(tmp_path / "raw")
    short = ["--clip-duration", "2", "--views", "2", "--size", "32", "--fps", "8", "--workers", "1"]
    built = build(tmp_path / "raw", "--out", tmp_path / "set", *short)
    assert built.exit_code == 0, built.output
    out = tmp_path / "run"
    command = ["eval", "seld", str(tmp_path / "set"), "--checkpoint", "none", "--out", str(out)]
    done = CliRunner().invoke(main, [*command, "--labels", "0.5,1", *FAST, "--steps", "24"])
    assert done.exit_code == 0, done.output
    assert "| 50 %" in done.output
    more = CliRunner().invoke(main, [*command, "--labels", "0.1,0.2", *FAST])
    assert more.exit_code == 0, more.output
    assert "--labels 0.1: the labels of 1 of 2 recordings (50 %)" in more.output
    assert "--labels 0.2: the labels of 1 of 2 recordings, as for 0.1" in more.output
    for share, learned in ((0.5, 1), (1, 2)):
        folder = out / f"seld-labels{share:g}"
        result = Result.read(folder / "seld-energy.result.json")
        assert next(iter(result.metrics)) == "F20°"
        assert result.test["label_share"] == share
        assert len(result.details["train_recordings"]) == learned
        assert (result.test_clips, result.test_sources) == (4, 2)
        counts = []
        for name, rows in labels.items():
            (tmp_path / "labels.csv").write_text("\n".join(rows))
            files = tmp_path / "labels.csv", folder / f"csv-energy/{name}.csv"
            counts.append(count(*map(read_dcase, files), (0, 8), "2024", distance=True))
        scores = scores_by_class(Counts.stack(counts).weighted(np.ones(2)), "2024", True).average()
        found = [scores.f20, scores.er20, scores.le_cd_deg, scores.lr_cd, scores.seld]
        assert scores.relative_distance is not None
        expected = [float(value) for value in (*found, scores.relative_distance)]
        values = [metric.value for metric in result.metrics.values()]
        assert values == pytest.approx(expected, rel=1e-6)
        assert set(result.details["jackknife_95"]) == set(result.metrics)
    assert (out / FIGURE).stat().st_size > 10_000
    reported = CliRunner().invoke(main, ["report", str(out), "--out", str(tmp_path / "report")])
    assert reported.exit_code == 0, reported.output
    assert "label share 0.5" in reported.output


def test_it_learns(root: Path, tmp_path: Path) -> None:
    plan = options(steps=300, saves=5, batch_size=8, hidden=64)
    (result,) = evaluate_seld(common(root, tmp_path, energy=True), plan)
    metrics = {name: metric.value for name, metric in result.metrics.items()}
    assert metrics["F20°"] > 0.6
    assert metrics["ER20°"] < 0.6
    assert metrics["LE_CD"] < 20
    assert metrics["LR_CD"] > 0.8
    losses = result.details["loss"]
    assert losses[-1] < 0.7 * losses[0]


def test_every_recording_has_a_file_and_files_of_an_earlier_result_are_gone(tmp_path: Path) -> None:
    """Names that differ only in their folder, or are what another one is renamed to."""
    sources = ["x/a-1", "x/a", "y/A", "z/a", "../..", "x/b c"]
    estimates = [
        Detections.from_rows([Detection(0, number, 0, 10.0, 0.0)]) for number in range(len(sources))
    ]
    nothing = Detections.from_rows([])
    folder = tmp_path / "csv"
    for last in (len(sources), 2):
        recordings = [
            Recording(source, nothing, estimate, 1, 0)
            for source, estimate in zip(sources[:last], estimates, strict=False)
        ]
        _write_estimates(recordings, folder)
        kinds = sorted(int(read_dcase(path).kind[0]) for path in folder.iterdir())
        assert kinds == list(range(last))
    assert [path.name for path in tmp_path.iterdir()] == ["csv"]


def recording(source: str, true: list[Detection], guessed: list[Detection]) -> Recording:
    return Recording(source, *map(Detections.from_rows, (true, guessed)), frames=20, twice=0)


@pytest.mark.parametrize("definition", ["2023", "2024"])
def test_intervals_of_classes_in_few_recordings(definition: Definition) -> None:
    """A round of the bootstrap without any recording of a class says nothing of this class."""
    plan = options(definition=definition).protocol
    rows = [
        [Detection(frame, kind, 0, 10.0 * kind, 0.0) for frame in range(10) for kind in (0, rare)]
        for rare in range(1, 6)
    ]
    metrics, _ = seld_metrics(
        [recording(str(n), rows[n % 5], rows[n % 5]) for n in range(5)],
        tuple(range(6)),
        plan,
        False,
    )
    for name, worst in {"F20°": 1, "ER20°": 0, "LR_CD": 1, "SELD score": 0}.items():
        assert metrics[name].interval_95 == pytest.approx((worst, worst), abs=1e-4)
    # A class that sounds nowhere in the test counts in every round as in the whole.
    metrics, _ = seld_metrics(
        [recording(str(n), rows[n], rows[n]) for n in range(5)], tuple(range(7)), plan, False
    )
    assert metrics["F20°"].value == pytest.approx(6 / 7)
    low, high = metrics["F20°"].interval_95 or (0, 0)
    assert low < 6 / 7 == pytest.approx(high)


def test_one_recording_with_sounds_among_silent_ones_has_finite_intervals() -> None:
    """Errors without any reference have no limit."""
    plan = options().protocol
    sounds, wrong = [
        [Detection(frame, 0, 0, place, 0.0) for frame in range(20)] for place in (0.0, 90.0)
    ]
    found = [recording("a", sounds, wrong), *(recording(name, [], wrong) for name in "bc")]
    metrics, details = seld_metrics(found, (0,), plan, False)
    low, high = metrics["ER20°"].interval_95 or (0, 0)
    assert 1 <= low <= metrics["ER20°"].value <= high < 10
    assert "jackknife_95" not in details


class _Stopped(Exception):
    pass


def test_an_interrupted_evaluation_resumes_to_the_same_result(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(out: Path) -> list[Result]:
        evaluate_seld(common(root, out), options((0.3, 1.0)))
        return [Result.read(path) for path in sorted(out.rglob("*.result.json"))]

    expected = evaluate(tmp_path / "whole")
    assert not list((tmp_path / "whole").rglob("*.progress"))
    saves, save = [0], Progress.save
    for stop in (2, 4, 6, 7):  # within the first share, after it, within the second, at its end

        def save_and_stop(self: Progress, state: dict[str, Any], stop: int = stop) -> None:
            save(self, state)
            saves[0] += 1
            if saves[0] == stop:
                raise _Stopped

        monkeypatch.setattr(Progress, "save", save_and_stop)
        with pytest.raises(_Stopped):
            evaluate(tmp_path / "parts")
    monkeypatch.setattr(Progress, "save", save)
    assert evaluate(tmp_path / "parts") == expected
    assert not list((tmp_path / "parts").rglob("*progress*"))
    for path in (tmp_path / "whole").rglob("*.csv"):
        other = tmp_path / "parts" / path.relative_to(tmp_path / "whole")
        assert other.read_bytes() == path.read_bytes()


def test_probes_and_video(root: Path, tmp_path: Path) -> None:
    network = evaluate_seld(
        common(root, tmp_path), options(inputs="audio+video", definition="2023")
    )
    assert network[0].views == 2
    assert "distance error" not in network[0].metrics
    probe = evaluate_seld(common(root, tmp_path), options(probe=True))
    assert probe[0].test["protocol"]["probe"]
    assert {path.parent.name for path in tmp_path.rglob("*.result.json")} == {
        "seld-video-labels1",
        "seld-probe-labels1",
    }


def test_the_frozen_network_of_a_probe_stays_as_it_is(root: Path, tmp_path: Path) -> None:
    from avtrain.evals.evaluation import open_evaluation
    from avtrain.evals.seld.model import SeldNet

    networks = open_evaluation("seld", common(root, tmp_path)).load_networks()
    before = {name: value.clone() for name, value in networks.audio_visual.state_dict().items()}
    for probe in (True, False):
        net = SeldNet(networks, 2, options(probe=probe).protocol).train()
        assert net.audio is not None
        assert net.audio.training is not probe
        assert all(p.requires_grad is not probe for p in net.audio.parameters())
        evaluate_seld(common(root, tmp_path / str(probe)), options(probe=probe))
    after = networks.audio_visual.state_dict()
    assert all((value == after[name]).all() for name, value in before.items())


def test_a_clip_that_cannot_be_read_is_left_out_and_named(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "set")
    key = damage(tmp_path / "set", 1, "test")
    command = ["eval", "seld", str(tmp_path / "set"), "--checkpoint", "none"]
    done = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "run"), *FAST])
    assert done.exit_code == 1, done.output
    assert f"left out: {tmp_path}" in done.output
    assert key in done.output
    result = json.loads(
        (tmp_path / "run/seld-labels1/seld-energy.result.json").read_text(encoding="utf-8")
    )
    assert (result["test_clips"], result["test_sources"]) == (5, 5)


def test_shares_that_would_fill_one_folder_are_one(tmp_path: Path) -> None:
    given = ["set", "--checkpoint", "none", "--out", str(tmp_path), "--labels"]
    given.append("0.123456,1,0.1234561,0.1234569")
    # Click keeps the help option of a command's first context, so it is that of the group.
    context = seld.make_context("seld", given, help_option_names=["-h", "--help"])
    parsed = context.params["labels"]
    assert parsed == (0.123456, 0.123457, 1.0)
    assert len({f"{share:g}" for share in parsed}) == 3


def test_what_cannot_be_honoured_is_refused(root: Path, tmp_path: Path) -> None:
    mono = replace(common(root, tmp_path), config=with_options(tiny("avsa"), audio="mono"))
    with pytest.raises(TrainingError, match="needs ambisonics, but these networks hear mono"):
        evaluate_seld(mono, options())
    with pytest.raises(TrainingError, match="--video is the feature of a video network"):
        evaluate_seld(common(root, tmp_path, energy=True), options(inputs="audio+video"))
    make_set(tmp_path / "unlabelled", {"train": 2, "test": 2})
    with pytest.raises(TrainingError, match="no clip of split 'train' of"):
        evaluate_seld(common(tmp_path / "unlabelled", tmp_path), options())
    command = ["eval", "seld", str(root), "--checkpoint", "untrained", "--out", str(tmp_path / "o")]
    for shares in ("0", "1.1", "nan", "", "0.1,x"):
        done = CliRunner().invoke(main, [*command, "--labels", shares])
        assert done.exit_code == 2
        assert "is no list of up to 20 shares" in done.output
    done = CliRunner().invoke(main, [*command, *FAST])
    assert "warning: log-mels do not tell left from right" in done.output
