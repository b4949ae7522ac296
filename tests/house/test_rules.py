"""The rules of the house hold, and each of them fails where it is broken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.house import rules
from tests.house.rules import Sources
from tests.support import ROOT

CODE = rules.sources(ROOT, "shards", "avprep", "avtrain")
EVERYTHING = CODE | rules.sources(ROOT, "benchmarks", "tests")

RULES: list[tuple[Callable[[Sources], list[str]], Sources, Sources]] = [
    (rules.packages_out_of_order, CODE, {"shards/new.py": "from avprep.errors import UserError\n"}),
    (rules.packages_out_of_order, CODE, {"avtrain/data/new.py": "import avprep.media.probe\n"}),
    (rules.rooms_out_of_order, CODE, {"avprep/media/new.py": "from avprep.build import plan\n"}),
    (rules.rooms_out_of_order, CODE, {"avprep/media/new.py": "from avprep import foa\n"}),
    (
        rules.rooms_out_of_order,
        CODE,
        {"avprep/formats/new.py": "def f():\n    import avprep.cli.main\n"},
    ),
    (rules.rooms_out_of_order, CODE, {"avtrain/attic/new.py": ""}),
    (
        rules.rooms_out_of_order,
        CODE,
        {"avtrain/evals/action/new.py": "from avtrain.evals.binary import evaluate\n"},
    ),
    (rules.crowded_rooms, EVERYTHING, {f"avprep/media/new_{n}.py": "" for n in range(13)}),
    (rules.long_files, EVERYTHING, {"avprep/media/new.py": "x = 1\n" * 401}),
    (
        rules.many_parameters,
        EVERYTHING,
        {"avprep/media/new.py": "def f(a, b, c, d, e, *, f, g, h, i): pass\n"},
    ),
    (
        rules.many_parameters,
        EVERYTHING,
        {"avprep/media/new.py": "class A:\n    def f(self, a, b, c, d, e, f, g, h, **i): pass\n"},
    ),
    (rules.named_of, EVERYTHING, {"avprep/media/new.py": "def f(of): pass\n"}),
    (rules.named_of, EVERYTHING, {"avprep/media/new.py": "for of in (): pass\n"}),
    (rules.named_of, EVERYTHING, {"avprep/media/new.py": "class A:\n    def of(cls): pass\n"}),
    (rules.begins_with_of, EVERYTHING, {"avprep/media/new.py": '"""Of one clip."""\n'}),
    (rules.begins_with_of, EVERYTHING, {"avprep/media/new.py": "x = 1  # Of all clips.\n"}),
    (rules.printed_as_it_is, CODE, {"avprep/cli/new.py": "click.echo(name)\n"}),
    (rules.printed_as_it_is, CODE, {"avtrain/data/new.py": "print(name)\n"}),
    (rules.printed_as_it_is, CODE, {"avprep/look/new.py": "tqdm.write(name)\n"}),
    (rules.printed_as_it_is, CODE, {"avprep/look/new.py": "tqdm(desc=name)\n"}),
    (rules.printed_as_it_is, CODE, {"shards/new.py": "import sys\nsys.stderr.write(name)\n"}),
]
"""Each rule, the files that it is about, and files that break it."""


@pytest.mark.parametrize(
    "rule", list({rule: None for rule, _, _ in RULES}), ids=lambda r: r.__name__
)
def test_the_house_keeps_its_rules(rule: Callable[[Sources], list[str]]) -> None:
    files = next(files for other, files, _ in RULES if other is rule)
    assert rule(files) == []


@pytest.mark.parametrize(("rule", "_", "broken"), RULES)
def test_a_broken_rule_is_found(
    rule: Callable[[Sources], list[str]], _: Sources, broken: Sources
) -> None:
    assert len(rule(broken)) == 1


def test_every_room_is_on_the_map() -> None:
    page = (ROOT / "docs" / "code.md").read_text()
    assert rules.unnamed_rooms(CODE, page) == []
    assert rules.unnamed_rooms(CODE | {"avprep/attic/new.py": ""}, page) == ["avprep/attic"]


def test_tests_stand_in_the_rooms_of_what_they_test() -> None:
    """Each folder below ``tests/avprep`` and ``tests/avtrain`` has the name of a room."""
    for path in rules.sources(ROOT, "tests/avprep", "tests/avtrain"):
        room = path.removeprefix("tests/").rpartition("/")[0]
        assert (ROOT / room).is_dir(), f"{path}: there is no room {room}"


def test_reading_and_training_need_nothing_of_the_build_side() -> None:
    files = rules.sources(ROOT, "shards", "avtrain")
    modules = sorted(rules.module_of(path) for path in files if "__main__" not in path)
    absent = ["ffmpeg", "imageio_ffmpeg", "webdataset", "cv2", "scipy", "soxr", "avprep"]
    absent += ["fsspec", "s3fs"]  # sets in folders need none of what reaches URLs
    code = (
        "import sys, importlib\n"
        f"sys.modules.update(dict.fromkeys({absent!r}))\n"  # importing one of them now fails
        f"[importlib.import_module(name) for name in {modules!r}]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
