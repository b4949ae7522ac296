"""A field that was read in the wrong convention becomes what the right one gives."""

from __future__ import annotations

import numpy as np
import pytest

from avprep.foa.ambix import to_ambix
from avprep.foa.conventions import CONVENTIONS, rereadings

FOUR = ("ambix", "fuma", "n3d")
RAW = np.random.default_rng(0).standard_normal((4, 1000)).astype(np.float32)
X, Y, W, Z = RAW
YOUTUBE = np.stack([X, Y, W, 0 * W, Z, 0 * W])


@pytest.mark.parametrize("decided", FOUR)
@pytest.mark.parametrize("right", FOUR)
def test_four_channels(decided: str, right: str) -> None:
    again = rereadings(decided)[right] @ to_ambix(RAW, decided)
    assert np.allclose(again, to_ambix(RAW, right), atol=1e-5)


@pytest.mark.parametrize("right", CONVENTIONS)
def test_youtubes_six_channels_read_as_others(right: str) -> None:
    again = rereadings("youtube")[right] @ to_ambix(YOUTUBE, "youtube")
    assert np.allclose(again, to_ambix(YOUTUBE, right), atol=1e-5)


@pytest.mark.parametrize("decided", FOUR)
def test_six_channels_that_were_read_as_four_lack_height(decided: str) -> None:
    again = rereadings(decided)["youtube"] @ to_ambix(YOUTUBE, decided)
    expected = to_ambix(YOUTUBE, "youtube")
    expected[2] = 0
    assert np.allclose(again, expected, atol=1e-5)


@pytest.mark.parametrize("right", FOUR)
def test_channels_that_the_container_named(right: str) -> None:
    indices = (2, 0, 3, 1)
    again = rereadings("ambix", indices)[right] @ to_ambix(RAW, "ambix", indices)
    assert np.allclose(again, to_ambix(RAW, right), atol=1e-5)


def test_what_is_not_known_is_not_said() -> None:
    assert rereadings("auto") == {}
    assert rereadings("nonsense") == {}
    assert rereadings("ambix", (0, 1, 2, 6)) == {}
