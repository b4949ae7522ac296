"""DCASE's metrics on cases counted by hand, and properties that hold for all."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avtrain.errors import TrainingError
from avtrain.evals.seld.detections import Detection, Detections, read_dcase, write_dcase
from avtrain.evals.seld.metrics import (
    Counts,
    Definition,
    Scores,
    count,
    jackknife_95,
    scored_frames,
    scores_by_class,
)
from shards.geometry import angle_between_deg, unit_vector

Row = tuple[int, int, float, float]


def detections(*rows: Row, distance_m: float = math.nan) -> Detections:
    """Rows (frame, class, azimuth, elevation)."""
    return Detections.from_rows(
        Detection(frame, kind, place, azimuth, elevation, distance_m)
        for place, (frame, kind, azimuth, elevation) in enumerate(rows)
    )


def scores(
    true: Detections,
    guessed: Detections,
    definition: Definition = "2024",
    classes: int = 1,
    frames: int | None = 10,
    distance: bool = False,
) -> Scores:
    counts = count(true, guessed, range(classes), definition, distance, frames)
    return scores_by_class(counts, definition, distance)


def test_a_frame_counted_by_hand() -> None:
    # Two of class 0, at 0° and 90°: one estimate is 10° off, one 30°, and a third is too many. One
    # of class 1 is missed.
    true = detections((0, 0, 0, 0), (0, 0, 90, 0), (0, 1, 0, 0))
    guessed = detections((0, 0, 120, 0), (0, 0, 10, 0), (0, 0, -90, 0))
    found = scores(true, guessed, classes=2)
    assert found.f20 == pytest.approx([1 / (2 + 0.5), 0])
    assert found.lr_cd == pytest.approx([1, 0])
    assert found.le_cd_deg[0] == pytest.approx(20, abs=1e-6)
    assert math.isnan(found.le_cd_deg[1])
    # One is misplaced and one extra, one is missed: a substitution and an insertion.
    assert found.er20 == pytest.approx([2 / 3, 2 / 3])
    mean = found.average()
    assert mean.f20 == pytest.approx(0.2)
    assert mean.le_cd_deg == pytest.approx(20, abs=1e-6)  # class 1 is left out
    seld = [(2 / 3 + 0.6 + 20 / 180 + 0) / 4, (2 / 3 + 1 + 1) / 3]
    assert found.seld == pytest.approx(seld, abs=1e-6)


def test_a_segment_counted_by_hand() -> None:
    # The source is heard in three frames, found in two of them, 10° and 20° off: one hit.
    true = detections((0, 0, 0, 0), (1, 0, 0, 0), (2, 0, 0, 0), (11, 0, 0, 0))
    guessed = detections((1, 0, 10, 0), (2, 0, -20, 0), (5, 0, 99, 0), (12, 0, 0, 0))
    found = scores(true, guessed, "2023", frames=20)
    # In the second segment estimate and reference share no frame: one is missed, none is extra.
    assert found.f20 == pytest.approx([1 / 1.5])
    assert found.lr_cd == pytest.approx([0.5])
    assert found.le_cd_deg == pytest.approx([15])
    assert found.er20 == pytest.approx([0.5])
    # Two estimates there are two that are missed, as in DCASE's code.
    more = detections((1, 0, 10, 0), (2, 0, -20, 0), (12, 0, 0, 0), (12, 0, 9, 0))
    assert scores(true, more, "2023", frames=20).lr_cd == pytest.approx([1 / 3])
    # By frames: one hit at 10°, one at 20° (a thousandth of a degree more than 0.0008° decides).
    by_frame = scores(true, guessed, "2024", frames=20)
    assert by_frame.lr_cd == pytest.approx([2 / 4])


def test_a_class_without_pairs_has_180_degrees_of_error_in_2023_and_none_in_2024() -> None:
    true = detections((0, 0, 0, 0))
    assert scores(true, true, "2023", 2).average().le_cd_deg == pytest.approx(90)
    assert scores(true, true, "2024", 2).average().le_cd_deg == pytest.approx(0, abs=1e-3)
    assert math.isnan(scores(true, detections(), "2024").average().le_cd_deg)


def test_nothing_is_found_where_nothing_sounds() -> None:
    nothing = detections()
    for definition in ("2023", "2024"):
        silent = scores(nothing, nothing, definition)  # type: ignore[arg-type]
        assert (silent.f20, silent.er20, silent.lr_cd) == (0, 0, 0)
        only_false = scores(nothing, detections((0, 0, 5, 5)), definition)  # type: ignore[arg-type]
        assert only_false.f20 == 0
        assert only_false.er20 > 1e10  # an error, and no reference


def test_directions_across_the_back_and_at_the_poles() -> None:
    true = detections((0, 0, 179, 0), (1, 0, 0, 90), (2, 0, 30, -85))
    guessed = detections((0, 0, -179, 0), (1, 0, 123, 90), (2, 0, -150, -85))
    for definition, angles in (("2024", [2, 0, 10]), ("2023", [4])):
        found = scores(true, guessed, definition)  # type: ignore[arg-type]
        assert found.f20 == pytest.approx([1])
        assert found.le_cd_deg == pytest.approx([np.mean(angles)], abs=1e-3)


def test_distance_decides_too() -> None:
    true = detections((0, 0, 0, 0), (1, 0, 0, 0), distance_m=2.0)
    near, far = detections((0, 0, 0, 0), distance_m=3.0), detections((0, 0, 0, 0), distance_m=4.1)
    found = scores(true, near, distance=True)
    assert found.relative_distance == pytest.approx([0.5])
    assert found.f20 == pytest.approx([1 / 1.5])
    assert found.seld == pytest.approx([(1 / 3 + 0 + 0.5) / 3], abs=1e-4)
    assert scores(true, far, distance=True).f20 == 0
    assert scores(true, far).f20 == pytest.approx([1 / 1.5])
    with pytest.raises(ValueError, match="unknown"):
        scores(true, detections((0, 0, 0, 0)), distance=True)
    with pytest.raises(ValueError, match="2023"):
        scores(true, near, "2023", distance=True)


def test_what_is_after_the_last_reference_is_not_scored() -> None:
    true, late = detections((0, 0, 0, 0), (9, 0, 0, 0)), detections((0, 0, 0, 0), (9, 0, 90, 0))
    assert scored_frames(true) == 9
    assert scores(true, late, frames=None).f20 == pytest.approx([1])
    assert scores(true, late, "2023", frames=None).le_cd_deg == pytest.approx([45])
    assert scored_frames(detections()) == 0


def test_jackknife_of_a_mean_is_students_interval() -> None:
    values = np.array([1.0, 2.0, 4.0, 7.0])
    without = (values.sum() - values) / 3
    half = 3.182446305 * values.std(ddof=1) / 2
    expected = (3.5 - half, 3.5 + half)
    assert jackknife_95(3.5, without) == pytest.approx(expected)


# Directions of any two estimates differ, so that the best pairing is one.
rows = st.lists(
    st.tuples(
        st.integers(0, 25), st.integers(0, 2), st.integers(-179, 180), st.integers(-89, 89)
    ).map(lambda row: (row[0], row[1], row[2] + row[3] / 1009, row[3] + row[2] / 997)),
    max_size=30,
)


def average(true: Detections, guessed: Detections, definition: Definition) -> Scores:
    return scores(true, guessed, definition, 3, frames=26).average()


@settings(deadline=None, max_examples=40)
@given(true=rows, guessed=rows, definition=st.sampled_from(["2023", "2024"]))
def test_properties_of_the_scores(
    true: list[Row], guessed: list[Row], definition: Definition
) -> None:
    reference, estimate = detections(*true), detections(*guessed)
    found = average(reference, estimate, definition)
    assert 0 <= found.f20 <= 1
    assert 0 <= found.lr_cd <= 1
    assert found.er20 >= 0
    # All turned by the same yaw, or mirrored, are as near to each other as before.
    for turn in (lambda a: (a + 77.0 + 180) % 360 - 180, lambda a: -a):
        turned = [
            detections(*((f, k, turn(a), e) for f, k, a, e in part)) for part in (true, guessed)
        ]
        other = average(*turned, definition)
        assert other.le_cd_deg == pytest.approx(found.le_cd_deg, abs=1e-4, nan_ok=True)
        assert other.lr_cd == found.lr_cd
    # What is found exactly is right, and then one more can only be worse.
    right = average(reference, reference, definition)
    kinds = {row[1] for row in true}
    assert right.f20 == pytest.approx(len(kinds) / 3)
    if true:
        assert right.er20 == 0
        more = average(reference, detections(*true, (0, 0, 12.3, 45.6)), definition)
        assert more.f20 <= right.f20
        assert more.er20 >= 0


@settings(deadline=None, max_examples=20)
@given(parts=st.lists(st.tuples(rows, rows), min_size=2, max_size=4))
def test_counts_of_recordings_add_up(parts: list[tuple[list[Row], list[Row]]]) -> None:
    counts = [count(detections(*t), detections(*g), range(3), "2024", False, 30) for t, g in parts]
    stacked = Counts.stack(counts)
    # The same recordings one after the other are one long recording.
    joined = [
        detections(
            *((frame + 30 * n, *rest) for n, part in enumerate(side) for frame, *rest in part)
        )  # type: ignore[misc]
        for side in zip(*parts, strict=True)
    ]
    whole = count(joined[0], joined[1], range(3), "2024", False, 30 * len(parts))
    summed = stacked.weighted(np.ones(len(parts)))
    assert summed.hits.tolist() == whole.hits.tolist()
    assert summed.errors == whole.errors
    assert summed.angle_deg == pytest.approx(whole.angle_deg)


def test_files_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kept = Detections.from_rows(
        Detection(int(f), int(k), int(s), float(a), float(e), float(d))
        for f, k, s, a, e, d in zip(
            *(rng.integers(0, 50, 40), rng.integers(0, 13, 40), rng.integers(0, 3, 40)),
            *(rng.uniform(-180, 180, 40), rng.uniform(-90, 90, 40), rng.uniform(0.5, 9, 40)),
            strict=True,
        )
    )
    path = tmp_path / "csv/mix001.csv"
    write_dcase(kept, path)
    assert path.read_text().count("\n") == 40
    assert {line.count(",") for line in path.read_text().splitlines()} == {6}
    back = read_dcase(path)
    assert back.frame.tolist() == kept.frame.tolist()
    assert back.kind.tolist() == kept.kind.tolist()
    assert back.source.tolist() == kept.source.tolist()
    assert back.distance_m.tolist() == kept.distance_m.tolist()
    vectors = (unit_vector(part.azimuth_deg, part.elevation_deg) for part in (back, kept))
    assert angle_between_deg(*vectors).max() < 1e-9
    write_dcase(detections(), path)
    assert path.read_bytes() == b""
    assert len(read_dcase(path)) == 0
    write_dcase(detections((3, 1, 180, -90)), path)
    assert not read_dcase(path).has_distance  # 0 stands for an unknown one


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("3,5,-90,30", (3, 5, 0, -90, 30, math.nan)),
        ("3,5,2,-90,30", (3, 5, 2, -90, 30, math.nan)),
        ("3,5,2,-90,30,150", (3, 5, 2, -90, 30, 1.5)),
        ("3,5,2,0,-1,0,1.5", (3, 5, 2, -90, 0, 1.5)),
    ],
)
def test_labels_of_all_years_are_read(
    tmp_path: Path, line: str, expected: tuple[float, ...]
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(line + "\n")
    found = read_dcase(path)
    values = [float(getattr(found, name)[0]) for name in vars(found)]
    assert values == pytest.approx(list(expected), nan_ok=True)


@pytest.mark.parametrize("text", ["frame,class\n", "1,2\n", "1,2,3,nan,5\n", "0.5,1,0,0,0\n", "\0"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(TrainingError, match=r"a\.csv is no file of DCASE's task 3"):
        read_dcase(path)
    with pytest.raises(TrainingError, match=r"b\.csv cannot be read"):
        read_dcase(tmp_path / "b.csv")
