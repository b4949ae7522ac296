"""A damaged recording costs only itself; `make soak` runs two thousand of them."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.__main__ import summary
from tests.fuzz.fuzzer import Fuzzer
from tests.fuzz.seeds import make_seeds

MUTANTS = 32


def test_damaged_recordings_cost_themselves_alone(tmp_path: Path) -> None:
    seeds = [seed for seed in make_seeds() if seed.layout in ("folder", "yt-dlp")]
    report = Fuzzer(seeds, 0, tmp_path).run(range(MUTANTS), narrow=False)
    assert not report.violations, "\n".join(map(str, (*report.violations, summary(report))))
    assert report.mutants == MUTANTS
    assert 0 < report.went_in < MUTANTS
