"""The measurements in benchmarks/: what they import exists. They take too long to run in tests."""

from __future__ import annotations

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support import ROOT

MEASUREMENTS = sorted((ROOT / "benchmarks").glob("*.py"))


def test_each_measurement_is_listed() -> None:
    page = (ROOT / "benchmarks/README.md").read_text()
    assert [file.name for file in MEASUREMENTS if f"`benchmarks/{file.name}`" not in page] == []


@pytest.mark.parametrize("file", MEASUREMENTS, ids=lambda file: file.stem)
def test_imports_of_our_packages_exist(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        if node.module.split(".")[0] in ("avprep", "avtrain", "shards", "benchmarks"):
            if node.module == "benchmarks.published_outputs":
                continue  # needs the published code's own packages
            module = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                assert hasattr(module, name) or find_spec(f"{node.module}.{name}"), name
