"""Hostile files do no harm, and harm would be seen; `make soak` runs a thousand attacks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.attack.damage.files import FILE_RULES, FileRule
from tests.attack.damage.members import MEMBER_RULES, MemberRule
from tests.attack.damage.sets import SetDamage, unpack
from tests.attack.damage.values import RULES, Rule, damage_json, dump, hostile_names, places
from tests.attack.planted import FAULTS
from tests.attack.sandbox import Sandbox, changes
from tests.support.tiny_set import make_set

KINDS = ["--kind", "set", "--kind", "checkpoint"]  # those whose valid things are soon made
COMMANDS = 9


def run(module: str, *arguments: object) -> str:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_hostile_files_do_no_harm() -> None:
    said = run("tests.attack", "--count", 15, "--seed", 1, *KINDS)
    assert f"{COMMANDS} commands" in said
    assert said.endswith(" 0 violations\n")


def test_every_planted_fault_is_seen(tmp_path: Path) -> None:
    said = run("tests.attack.planted", tmp_path / "boxes").splitlines()
    assert [line for line in said if line.startswith("MISSED")] == []
    assert len([line for line in said if line.startswith("seen")]) == len(FAULTS)
    assert said[-1] == "healthy  []"


@pytest.mark.parametrize("rule", dict.fromkeys(FILE_RULES), ids=lambda rule: rule.__name__)
def test_each_file_rule_changes_the_file(tmp_path: Path, rule: FileRule) -> None:
    box = Sandbox(tmp_path / "box")
    path = box.inside / "set" / "train" / "a.tar"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(range(256)) * 8)
    path.with_name("b.tar").write_bytes(b"b" * 100)
    before = box.snapshot(())
    rule(np.random.default_rng(0), path, box.outside)
    assert any(str(path.parent) in change for change in changes(before, box.snapshot(())))
    box.remove()


@pytest.mark.parametrize("rule", dict.fromkeys(MEMBER_RULES), ids=lambda rule: rule.__name__)
def test_each_member_rule_changes_a_member(tmp_path: Path, rule: MemberRule) -> None:
    root = make_set(tmp_path, {"train": 1}, views=2, map_times_s=(0.5,))
    members = next(iter(unpack(root / "train/train-000000.tar").values()))
    for seed in range(5):
        changed = dict(members)
        rule(np.random.default_rng(seed), changed, "/outside", 1)
        assert changed != members, seed


@pytest.mark.parametrize("rule", dict.fromkeys(RULES), ids=lambda rule: rule.__name__)
def test_each_json_rule_changes_the_value(rule: Rule) -> None:
    value = {"a": [1, 2.5, "x"], "b": {"c": None, "d": True}, "e": "name"}
    names = hostile_names("/outside", 1)
    for number in range(len(list(places(value)))):
        changed = json.loads(json.dumps(value))
        container, key = list(places(changed))[number]
        rule(np.random.default_rng(number), container, key, names)
        assert dump(changed) != dump(value), (number, changed)


def test_a_set_of_a_stranger_agrees_with_itself(tmp_path: Path) -> None:
    """What is damaged inside a tar is not found by its hash, but where it is read."""
    root = make_set(tmp_path / "set", {"train": 2}, views=2)
    damage = SetDamage(root, tmp_path, 1)
    before = unpack(root / "train/train-000000.tar")
    damage.sample(np.random.default_rng(0), root / "train/train-000000.tar", "member")
    assert unpack(root / "train/train-000000.tar") != before
    ended = subprocess.run(
        [sys.executable, "-m", "avprep", "verify", "--quick", "--workers", "1", root],
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout


def test_a_case_depends_on_its_seed_and_number_alone() -> None:
    content = dump({"a": [1, 2, 3], "b": "x"})
    names = hostile_names("/outside", 1)
    once, again = (damage_json(np.random.default_rng([0, 7]), content, names) for _ in range(2))
    assert once == again
