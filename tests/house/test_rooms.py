"""The rooms of the house: who may import whom, and what a training node must not need."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.support import ROOT

MAY_IMPORT = {"shards": set(), "avprep": {"shards"}, "avtrain": {"shards"}}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_doors_open_one_way_only(room: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file} imports relatively"
                names = [node.module or ""]
            others = {name.split(".")[0] for name in names} & set(MAY_IMPORT) - {room}
            assert others <= MAY_IMPORT[room], f"{file} imports {others}"


def test_reading_and_training_need_nothing_of_the_build_side() -> None:
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for room in ("shards", "avtrain")
        for file in sorted((ROOT / room).rglob("*.py"))
        if not file.stem.startswith("__")
    ]
    absent = ["ffmpeg", "imageio_ffmpeg", "webdataset", "cv2", "scipy", "soxr", "avprep"]
    absent += ["fsspec", "s3fs"]  # sets in folders need none of what reaches URLs
    code = (
        "import sys, importlib\n"
        f"sys.modules.update(dict.fromkeys({absent!r}))\n"  # importing one of them now fails
        f"[importlib.import_module(name) for name in {modules!r}]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
