"""Retrieval: ranks of cases computed by hand, and chance by the number of candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from avtrain.cli.main import main
from avtrain.config import Config, tiny
from avtrain.errors import TrainingError
from avtrain.evals import retrieval
from avtrain.evals.evaluation import EvaluationOptions
from avtrain.evals.frozen import Networks
from avtrain.evals.progress import Progress, delete_progress
from avtrain.evals.results import Result
from avtrain.evals.retrieval import RetrievalOptions, ranks_in_gallery, ranks_within
from avtrain.networks.models import Embeddings
from shards.reader import ShardSet
from tests.support.tiny_set import make_set


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options: dict[str, Any] = {"clips_per_source": 2, "views": 4, "labelled": True}
    return make_set(tmp_path_factory.mktemp("set"), {"train": 2, "test": 3}, **options)


def test_ranks_by_hand() -> None:
    # Two clips of two views. Query 0 of clip 0 likes its own view best, query 1 likes view 0
    # better than its own; both views of clip 1 are equal, and a tie is a miss.
    candidates = F.normalize(torch.tensor([[[1.0, 0], [0, 1]], [[1, 1], [1, 1]]]), dim=-1)
    queries = F.normalize(torch.tensor([[[1.0, 0], [3, 1]], [[1, 0], [2, 3]]]), dim=-1)
    assert ranks_within(queries, candidates).tolist() == [[1, 2], [2, 2]]
    # Among all four: query (3, 1) has (1, 1) twice and (1, 0) before its own (0, 1); query (1, 0)
    # of clip 1 has (1, 0) before its own pair; (2, 3) likes that pair best.
    for seed in range(3):
        assert ranks_in_gallery(queries, candidates, 2, seed).tolist() == [[1, 4], [3, 2]]
    # A gallery of one clip is the clip itself.
    assert ranks_in_gallery(queries, candidates, 1, 0).tolist() == [[1, 2], [2, 2]]
    # Collapsed or diverged networks find nothing.
    same = torch.ones(3, 4, 8)
    for broken in (same, same * torch.nan):
        assert ranks_within(broken, broken).tolist() == [[4] * 4] * 3
        assert ranks_in_gallery(broken, broken, 3, 0).tolist() == [[12] * 4] * 3


def test_random_embeddings_rank_at_chance() -> None:
    torch.manual_seed(0)
    queries, candidates = F.normalize(torch.randn(2, 600, 4, 8), dim=-1)
    within, among = ranks_within(queries, candidates), ranks_in_gallery(queries, candidates, 50, 0)
    assert (within == 1).float().mean() == pytest.approx(1 / 4, abs=0.04)
    assert (among <= 10).float().mean() == pytest.approx(10 / 200, abs=0.02)
    assert among.double().median() == pytest.approx(201 / 2, abs=8)


def evaluated(root: Path, out: Path, config: Config | None = None) -> Result:
    common = EvaluationOptions(str(root), config or tiny("avsa"), out, device="cpu", workers=0)
    options = RetrievalOptions(views=3, windows=2, gallery=4)
    return retrieval.evaluate_retrieval(common, options)


def test_right_embeddings_rank_first_in_any_reading_order(
    root: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """One direction has perfect embeddings, the other opposite ones."""

    def embed(_: object, batch: Any) -> Embeddings:
        generator = torch.Generator().manual_seed(1)
        names = torch.randn(100, 3, 64, generator=generator)[batch.index]
        return Embeddings(names, names, -names, names)

    monkeypatch.setattr(retrieval, "embed", embed)
    result = evaluated(root, tmp_path)
    right, wrong = (result.details[name] for name in retrieval.DIRECTIONS)
    assert right["gallery, recall@1"]["value"] == right["within clip, recall@1"]["value"] == 1
    assert right["gallery, median rank"]["value"] == 1
    assert wrong["gallery, recall@10"]["value"] == 0
    assert wrong["gallery, median rank"]["value"] == 12
    both = result.metrics["gallery, recall@1"]
    assert (both.value, both.chance) == (0.5, pytest.approx(1 / 12))
    assert result.metrics["within clip, recall@1"].chance == pytest.approx(1 / 3)
    assert result.metrics["within clip, median rank"].chance == 2
    by_truth = result.details["right_view_by_truth"].values()
    assert sum(part["views"] for part in by_truth) == result.test_clips * 3 * windows_of(result)
    for part in by_truth:
        shares = [part[name] for name in retrieval.DIRECTIONS]
        assert shares == ([1.0, 0.0] if part["views"] else [None, None])


def windows_of(result: Result) -> int:
    windows = result.test["windows"]
    assert isinstance(windows, int)
    return windows


def test_right_views_by_where_a_source_is_seen() -> None:
    """In two windows of three clips with two views: seen in the first view, in none, unlabelled."""
    shows = np.array([[[True, False], [False, False], [False, True]]] * 2)
    known = np.array([[True, True, False]] * 2)
    within = np.full((2, 2, 3, 2), 2)  # windows, directions, clips, views
    within[0, 0, 0] = [1, 1]
    within[1, 1, 0, 0] = 1
    within[:, 0, 1, 0] = 1
    within[:, :, 2] = 1
    details = retrieval.Truth(known, shows).details(within)
    audio, video = retrieval.DIRECTIONS
    assert details == {
        "right_view_by_truth": {
            "source_in_view": {"views": 2, audio: 0.5, video: 0.5},
            "source_in_other_views": {"views": 2, audio: 0.5, video: 0.0},
            "source_in_no_view": {"views": 4, audio: 0.5, video: 0.0},
        }
    }
    sources = np.array(["a", "b", "c"])
    found = retrieval.Truth(known, shows).metrics(within, sources)[retrieval.OTHER_VIEWS]
    assert (found.value, found.chance) == (0.5, 0.5)
    within[:, 0, 0, 1] = [2, 2]
    found = retrieval.Truth(known, shows).metrics(within, sources)[retrieval.OTHER_VIEWS]
    assert found.value == 0
    assert retrieval.Truth(np.zeros_like(known), shows).metrics(within, sources) == {}
    assert retrieval.Truth(np.zeros_like(known), shows).details(within) == {}
    assert retrieval.Truth(known, shows[..., :1]).details(within[..., :1]) == {}


def test_intervals_draw_the_sources_of_the_clips(
    root: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Only the clips of one of three sources are found."""
    sources = ShardSet(root, "test").sources

    def embed(_: object, batch: Any) -> Embeddings:
        generator = torch.Generator().manual_seed(1)
        names = torch.randn(100, 3, 64, generator=generator)[batch.index]
        found = [sources[index] == sources[0] for index in batch.index]
        visible = names * torch.tensor(found)[:, None, None]
        return Embeddings(visible, names, visible, names)

    monkeypatch.setattr(retrieval, "embed", embed)
    metric = evaluated(root, tmp_path).metrics["within clip, recall@1"]
    assert (metric.value, metric.interval_95) == (pytest.approx(1 / 3), (0, 1))


def test_networks_that_diverged_are_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than ranked: nothing compares with NaN."""
    monkeypatch.setattr(Networks, "audio", lambda _, batch, *__: torch.full((1, 4, 8), torch.nan))
    with pytest.raises(TrainingError, match="features are not all finite"):
        evaluated(root, tmp_path)


def test_an_interrupted_retrieval_resumes(root: Path, tmp_path: Path, monkeypatch: Any) -> None:
    whole = evaluated(root, tmp_path / "whole")
    save = Progress.save

    def save_and_stop(self: Progress, state: dict[str, Any]) -> None:
        save(self, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            evaluated(root, tmp_path / "parts")
    read: list[int] = []
    embed = retrieval.embed
    monkeypatch.setattr(
        retrieval, "embed", lambda networks, batch: (read.append(0), embed(networks, batch))[1]
    )
    assert evaluated(root, tmp_path / "parts") == whole
    delete_progress(tmp_path / "parts", [whole])
    assert len(read) == 2  # one window remains, and no batch has two clips of a source
    assert [path.name for path in (tmp_path / "parts").iterdir()] == [
        "retrieval-untrained.result.json"
    ]


def test_avc_networks_compare_plain_embeddings(
    root: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    seen: list[Embeddings] = []
    embed = retrieval.embed
    monkeypatch.setattr(
        retrieval, "embed", lambda *given: (seen.append(embed(*given)), seen[-1])[1]
    )

    def avtrain(*arguments: object) -> click.testing.Result:
        return click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])

    run = tmp_path / "run"
    pretrain = ["pretrain", root, "--task", "avc", "--steps", 1, "--batch-size", 4]
    assert avtrain(*pretrain, "--out", run).exit_code == 0
    arguments = ["--checkpoint", run / "checkpoint.pt", "--out", run, "--windows", 1]
    result = avtrain("eval", "retrieval", root, *arguments, "--views", 2, "--gallery", 3)
    assert result.exit_code == 0, result.output
    written = Result.read(run / "retrieval.result.json")
    assert written.details["predictions"] == "plain embeddings"
    assert written.details["gallery_candidates"] == 6
    # Heads of predictions were not trained, and are not used.
    for part in seen:
        assert torch.equal(part.predicted_audio, part.video)
        assert torch.equal(part.predicted_video, part.audio)
    seen.clear()
    evaluated(root, tmp_path / "avsa")
    assert not any(torch.equal(part.predicted_audio, part.video) for part in seen)
    baseline = Result.read(run / "retrieval-untrained.result.json")
    assert list(baseline.metrics) == list(written.metrics)
    assert np.isfinite([metric.value for metric in written.metrics.values()]).all()
    assert "gallery, recall@10 (%)" in result.stdout
