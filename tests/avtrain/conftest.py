"""What all tests of training and evaluations share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from matplotlib.layout_engine import ConstrainedLayoutEngine


@pytest.fixture(scope="module", autouse=True)
def figures_are_not_laid_out() -> Iterator[None]:
    """Every run and evaluation draws a figure. To lay it out takes longer than to draw it, and no
    test here looks at where its parts are. The commands of the pages lay theirs out, when
    tests/house/test_docs.py runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConstrainedLayoutEngine, "execute", lambda self, figure: None)
        yield
