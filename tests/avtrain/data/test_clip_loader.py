"""Batches for a loop of one's own: the plan's promises, from Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avtrain import ClipLoader
from avtrain.config import AugmentConfig
from avtrain.data.batch import Batch
from avtrain.errors import TrainingError
from shards import ShardSet
from shards.geometry import rotate_foa, view_foa_matrix
from tests.support import ROOT
from tests.support.documented import blocks_of
from tests.support.ranks import run_ranks
from tests.support.tiny_set import damage, make_set

PYTHON_PAGE = ROOT / "docs/python.md"
CLIP: dict[str, Any] = {"views": 2, "frames": 4, "fps": 8.0, "seed": 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"), {"train": 7}, clips_per_source=3)


def loader(root: Path, **options: Any) -> ClipLoader:
    return ClipLoader(shards=ShardSet(root), **{"batch_size": 6, **CLIP, **options})


def clips(batches: list[Batch]) -> list[int]:
    return [int(clip) for batch in batches for clip in batch.index]


@pytest.mark.parametrize("size", [1, 3])
def test_an_epoch_shows_every_clip_once_and_no_source_twice_in_a_step(
    root: Path, size: int
) -> None:
    ranks = [loader(root, rank=rank, world_size=size) for rank in range(size)]
    sources = ranks[0].shards.sources
    epochs = []
    for _ in range(2):
        steps = [list(rank) for rank in ranks]
        assert {len(batches) for batches in steps} == {len(ranks[0])} == {4}
        for parts in zip(*steps, strict=True):
            together = [sources[clip] for clip in clips(list(parts))]
            assert len(set(together)) == len(together)
        epochs.append(clips([batch for batches in steps for batch in batches]))
        assert sorted(epochs[-1]) == list(range(21))
    assert epochs[0] != epochs[1]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("taken", [0, 1, 3, 4])
def test_a_saved_place_continues_on_other_ranks_and_workers(root: Path, taken: int) -> None:
    augment = AugmentConfig()
    undisturbed = loader(root, augment=augment)
    wanted = [*undisturbed, *undisturbed][taken:]
    first = loader(root, augment=augment)
    for _ in zip(range(taken), first, strict=False):
        pass
    state = json.loads(json.dumps(first.state_dict()))
    ranks = [
        loader(root, augment=augment, rank=rank, world_size=2, workers=rank) for rank in range(2)
    ]
    for rank in ranks:
        rank.load_state_dict(state)
    parts = [[*rank, *rank][: len(wanted)] for rank in ranks]
    for whole, part in zip(wanted, zip(*parts, strict=True), strict=True):
        for name in ("index", "frames", "matrices", "audio", "volume", "mirror"):
            found = torch.cat([getattr(batch, name) for batch in part])
            assert torch.equal(found, getattr(whole, name)), name


def test_a_pass_that_is_left_early_continues(root: Path) -> None:
    left = loader(root)
    first = next(iter(left))
    rest = list(left)
    assert sorted(clips([first, *rest])) == list(range(21))
    left.set_epoch(0)
    assert torch.equal(next(iter(left)).index, first.index)


@pytest.mark.parametrize("layout", ["rotated", "source"])
def test_the_sound_of_a_view_is_turned_to_it(tmp_path: Path, layout: str) -> None:
    """By yaw and pitch at once, and mirrored with the picture."""
    root = make_set(tmp_path / "set", {"train": 3}, layout=layout, tilt_deg=40.0)
    for mirror in (False, True):
        augment = AugmentConfig((0.0, 0.0, 0.0, 0.0), 0.0, mirror)
        whole = loader(root, views=5, audio_s=2.0, augment=augment, batch_size=3)
        (batch,) = whole
        sound = batch.view_audio()
        for row, clip in enumerate(batch.index.tolist()):
            field, stored = whole.shards.foa(clip, 0, 48_000)
            field = rotate_foa(field, stored.T)
            draw = whole._clips.draw(0, clip)
            for place, view in enumerate(draw.views):
                looks = whole.shards.info(clip).views[view]
                matrix = view_foa_matrix(looks.azimuth_deg, looks.elevation_deg)
                expected = rotate_foa(field, matrix)
                if batch.mirror[row]:
                    expected[1] *= -1
                np.testing.assert_allclose(sound[row, place].numpy(), expected, atol=2e-4)


def test_a_damaged_clip_is_replaced_and_noted(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {"train": 8})
    key = damage(root, 2)
    whole = loader(root, batch_size=4)
    seen = clips(list(whole))
    assert len(seen) == 8
    assert 2 not in seen
    assert list(whole.unreadable.faults) == [2]
    assert key in whole.unreadable.faults[2]


def test_lightning_goes_on_in_the_middle_of_an_epoch(root: Path, tmp_path: Path) -> None:
    """By its own protocol for loaders with a state, as the page says."""
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Seen(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.clips: list[list[int]] = []

        def training_step(self, batch: Batch, _: int) -> torch.Tensor:
            self.clips.append(batch.index.tolist())
            return self.weight.sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    def fit(*callbacks: Any, **options: Any) -> list[list[int]]:
        quiet = {f"enable_{name}": False for name in ("progress_bar", "model_summary")}
        trainer = lightning.Trainer(
            max_steps=9, accelerator="cpu", logger=False, callbacks=[*callbacks], **quiet
        )
        module = Seen()
        trainer.fit(module, loader(root), **options)
        return module.clips

    kept = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    whole = fit(kept)
    assert len(whole) == 9
    for step in (2, 4, 6):  # an epoch has four steps
        again = fit(kept, ckpt_path=tmp_path / f"step={step}.ckpt", weights_only=True)
        assert again == whole[step:]


def test_a_pass_ends_where_another_begins(root: Path) -> None:
    whole = loader(root)
    old = iter(whole)
    next(old)
    next(iter(whole))
    with pytest.raises(TrainingError, match="this pass over the loader is over"):
        next(old)
    kept = iter(whole)
    next(kept)
    whole.set_epoch(3)
    with pytest.raises(TrainingError, match="this pass over the loader is over"):
        next(kept)
    assert (whole.epoch, whole.step) == (3, 0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 1}, "batch_size must be a whole number from 2, not 1"),
        ({"batch_size": "4"}, "batch_size must be a whole number from 2, not '4'"),
        ({"views": 2.0}, "views must be a whole number"),
        ({"clips_per_source": 0}, "clips_per_source must be a whole number from 1"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"audio_s": 1e-6}, "audio_s must be a number from 0.01"),
        ({"audio": "ambix"}, "audio must be one of foa"),
        ({"views": 9}, "fewer than the 9"),
        ({"fps": 5.0}, "frames per second"),
        ({"rank": 1}, "rank and world_size go together"),
        ({"rank": 2, "world_size": 2}, "there is no rank 2 of 2"),
        ({"rank": "0", "world_size": 2}, "there is no rank '0' of 2"),
        ({"augment": True}, "augment must be an AugmentConfig"),
        ({"audio": ["foa"]}, "audio must be one of foa"),
        ({"batch_size": 3, "rank": 0, "world_size": 4}, "cannot be split among 4"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(
    root: Path, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(TrainingError, match=sentence):
        loader(root, **options)


def test_a_place_of_another_loader_is_refused(root: Path, tmp_path: Path) -> None:
    state = loader(root, batch_size=np.int64(6)).state_dict()
    json.dumps(state)
    with pytest.raises(TrainingError, match="differs in batch_size, seed"):
        loader(root, batch_size=5, seed=4).load_state_dict(state)
    other = make_set(tmp_path / "other", {"train": 7}, clips_per_source=3, seed=1)
    with pytest.raises(TrainingError, match="differs in set"):
        loader(other).load_state_dict(state)
    for place in ({"step": 4}, {"epoch": "0"}, {"epoch": -1}, {"settings": 1}):
        with pytest.raises(TrainingError):
            loader(root).load_state_dict({**state, **place})
    with pytest.raises(TrainingError, match=r'such as ShardSet\("folder", "train"\)'):
        ClipLoader(shards="folder", batch_size=4)  # type: ignore[arg-type]


def test_the_names_of_the_packages_bring_nothing_until_they_are_used() -> None:
    code = (
        "import sys, avtrain, shards; assert not {'torch', 'numpy', 'av'} & set(sys.modules); "
        "avtrain.ClipLoader, avtrain.FeatureConfig, shards.ShardSet; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for module in (sys.modules["avtrain"], sys.modules["shards"]):
        with pytest.raises(AttributeError, match="nothing"):
            module.nothing  # noqa: B018


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("end", ["", "raise KeyError(1)"])
def test_a_program_that_holds_a_pass_ends(root: Path, workers: int, end: str) -> None:
    """The interpreter closes it when no thread can be started any more."""
    code = (
        "from avtrain import ClipLoader\nfrom shards import ShardSet\n"
        f"loader = ClipLoader(shards=ShardSet({str(root)!r}), batch_size=6, views=2, frames=4, "
        f"fps=8.0, workers={workers})\nheld = iter(loader)\nnext(held)\n{end}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=120, capture_output=True, text=True)
    assert done.returncode == bool(end), done.stderr
    assert not end or done.stderr.strip().endswith("KeyError: 1")


def _run(code: str, folder: Path) -> None:
    os.chdir(folder)
    exec(code, {"__name__": "__main__"})


def test_the_documented_loop_trains_on_two_ranks_and_continues(tmp_path: Path) -> None:
    """From the place where two ranks were killed, one alone goes on."""
    make_set(tmp_path / "shards", {"train": 9})
    (code, *_) = [b.text for b in blocks_of(PYTHON_PAGE.read_text()) if b.language == "python"]
    changes = {"batch_size=28": "batch_size=4", "fps=16.0": "fps=8.0", "% 500": "% 2"}
    changes |= {"112)": "32)", "epoch < 100": "epoch < 1"}
    for there, here in changes.items():
        assert there in code
        code = code.replace(there, here)
    dies = code.replace(
        "if rank == 0 and", "if loader.step == 0: os._exit(9)\n        if rank == 0 and"
    )
    for ended in run_ranks(2, tmp_path, _run, dies, tmp_path):
        assert ended.status == 9, ended.stderr
    place = torch.load(tmp_path / "loop.pt", weights_only=True)["loader"]
    assert (place["epoch"], place["step"]) == (0, 2)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    state = torch.load(tmp_path / "loop.pt", weights_only=True)
    assert (state["loader"]["epoch"], state["loader"]["step"]) == (1, 0)
    assert state["optimiser"]["state"][0]["step"] == 3
