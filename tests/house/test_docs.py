"""The README and the pages of docs/: every command runs, and every name, path and link exists."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.support import ROOT
from tests.support.documented import (
    OURS,
    PAGES,
    Block,
    Stale,
    blocks_of,
    check,
    check_ours,
    commands_of,
    context_of,
    known_options,
    links_of,
    names_in,
    options_of,
    paths_of,
)
from tests.support.example_data import BUILD, PRETRAIN, TRAINED_ON, make_examples

NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
EVALUATE = ["--preset", "tiny", "--no-baseline", "--device", "cpu", "--num-workers", "0"]
TINY = {
    "avprep build-shards": BUILD,
    "avprep demo": ["--clips", "1", "--workers", "1"],
    "avprep inspect": ["--workers", "1"],
    "avprep coverage": ["--workers", "1"],
    "avprep verify": ["--workers", "1"],
    "avprep view": ["--html", "page.html"],  # it would serve the page until Ctrl-C
    "avtrain pretrain": PRETRAIN,
    "avtrain eval avsa": [*EVALUATE, "--windows", "1"],
    "avtrain eval avc": [*EVALUATE, "--windows", "1"],
    "avtrain eval retrieval": EVALUATE,
    "avtrain eval locate": EVALUATE,
    "avtrain eval localization": EVALUATE,
    "avtrain eval probe": [*EVALUATE, "--windows", "1", "--rounds", "1"],
    "avtrain eval seld": [*EVALUATE, "--steps", "1"],
    "avtrain eval segmentation": [*EVALUATE, "--epochs", "1", "--maps", "1"],
    "avtrain eval action": [*EVALUATE, "--probe", "--folds", "1", "--windows", "1"],
}
"""Options that make a command fast: appended, they overrule those of the page."""
IN_PYTHON = {
    "start=40": "start=4",  # the tiny clips last 2 s
    "start=60_000": "start=0",
    '"shards",': f'"{TRAINED_ON}",',
    "batch_size=28": "batch_size=4",
    "fps=16.0": "fps=8.0",
    "epoch < 100": "epoch < 1",
}
"""What makes an example in Python fit the tiny data."""


def as_tiny(code: str) -> str:
    """An example of a page that runs on tiny data."""
    for there, here in IN_PYTHON.items():
        code = code.replace(there, here)
    return code


MODULE_PAGE = "docs/own-network.md"
"""Its first example is the module mynet of its commands."""
ONLY_CHECKED = ("--scheduler", "s3://", "--checkpoint published.pt")
"""Commands with one of these need a cluster, a bucket, or networks of the paper's size."""
FROM_OTHERS = {
    *("--write-info-json", "--max-restarts", "--signals-to-handle", "--requeue"),
    *("--dependency", "--nproc-per-node", "--shm-size"),
    *("--no-index", "--no-deps", "--only-binary", "--python-version", "--platform", "--dest"),
    *("--find-links", "--target", "--build-arg"),
}
"""Options in pages that belong to commands of others."""


class Workplace:
    """A folder with tiny data, in which the commands of all pages run one after the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        make_examples(root)
        self.made_by: dict[Path, list[str]] = {}

    def run(self, words: list[str]) -> None:
        """Run a command with tiny options; one that has made its output already is left out."""
        name, command = check_ours(words)
        if any(mark in " ".join(words) for mark in ONLY_CHECKED):
            return
        arguments = self._arguments(name, words)
        out = self._output(name, command, arguments)
        arguments += TINY.get(name, ())
        if "--actions" in words:
            arguments[-4:] = ["--clips", "30", "--workers", "1"]  # the fewest there can be
        if name == "avtrain locate" and "--at" not in words:
            arguments += ["--duration", "1.5"]
        if "--curriculum" in words:
            arguments += ["--curriculum-steps", "1"]
        if name == "avtrain pretrain":
            arguments += ["--out", str(out)]
        if out is not None and self.made_by.get(out) == words:
            return
        if out is not None and not {"--append", "--resume"} & set(words):
            if name in ("avprep build-shards", "avprep demo", "avtrain pretrain"):
                shutil.rmtree(out, ignore_errors=True)
            self.made_by[out] = words
        result = CliRunner().invoke(command, arguments, prog_name=name)
        assert result.exit_code == 0, f"{' '.join(words)}\n{result.output}{result.exception!r}"

    def _arguments(self, name: str, words: list[str]) -> list[str]:
        arguments: list[str] = []
        for word in words[len(name.split()) :]:
            if word.startswith("/"):
                word = str(self.root / word[1:])
            if "shards" in word and name.startswith("avtrain") and "ucf101" not in word:
                weight = word.partition(":")[1:]
                word = "".join((str(self.root / TRAINED_ON), *weight))
            arguments += sorted(map(str, self.root.glob(word))) if "*" in word else [word]
        return arguments

    def _output(self, name: str, command: click.Command, arguments: list[str]) -> Path | None:
        with context_of(command, name) as context:
            values, _, _ = command.make_parser(context).parse_args(list(arguments))
        out = values.get("out")
        if name == "avtrain pretrain" and out is None:
            out = f"runs/{values.get('task', 'avsa')}-{values.get('preset', 'tiny')}"
        return None if out is None else self.root / out


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("pages"))


@pytest.mark.parametrize("name", NAMES)
def test_commands_run(name: str, workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace.root)
    monkeypatch.setattr("avtrain.evals.probe.model._MOST_STEPS", 25)  # there is no option for it
    blocks = blocks_of((ROOT / name).read_text())
    if name == MODULE_PAGE:
        code = next(block.text for block in blocks if block.language == "python")
        Path("mynet.py").write_text(code)
    for block in blocks:
        if block.language == "python":
            exec(as_tiny(block.text), {"__name__": "__main__"})
        if block.language != "bash":
            continue
        for words in commands_of(block):
            if words[0] in OURS:
                workplace.run(words)
            else:
                check(words)
                if words[0] == "tar":
                    end = words.index("|") if "|" in words else len(words)
                    subprocess.run(words[:end], check=True, capture_output=True)


@pytest.mark.parametrize("name", NAMES)
def test_links_paths_and_options_exist(name: str) -> None:
    page = ROOT / name
    text = page.read_text()
    missing = [link for link in links_of(text) if not (page.parent / link).exists()]
    missing += [path for path in paths_of(text) if not (ROOT / path).exists()]
    if name != "CHANGELOG.md":  # it also tells of what was
        missing += sorted(set(options_of(text)) - known_options() - FROM_OTHERS)
        assert not missing, f"{name} names what does not exist: {missing}"


def test_every_command_of_ours_is_shown_in_a_page() -> None:
    def names(name: str, command: click.Command) -> list[str]:
        if isinstance(command, click.Group):
            return [
                n for key, inner in command.commands.items() for n in names(f"{name} {key}", inner)
            ]
        return [name]

    shown = {
        check_ours(words)[0]
        for page in PAGES
        for block in blocks_of(page.read_text())
        if block.language == "bash"
        for words in commands_of(block)
        if words[0] in OURS
    }
    everything = {n for name, command in OURS.items() for n in names(name, command)}
    assert everything - shown == set()


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("docs/")])
def test_a_page_starts_with_the_command_that_a_reader_wants(name: str) -> None:
    assert re.match(r"# [^\n]+\n\n```bash\n", (ROOT / name).read_text())


def test_decisions_are_made_where_the_page_says() -> None:
    text = (ROOT / "docs/code.md").read_text().partition("## Where is it decided?")[2]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    checked = 0
    for _, files, names in (row for row in rows if len(row) == 3):
        paths = re.findall(r"`([^`]+)`", files)
        defined = {name for path in paths for name in names_in(ROOT / path)}
        for name in re.findall(r"`([^`]+)`", names):
            assert name in defined, f"{name} is not defined in {paths}"
            checked += 1
    assert checked > 20


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("avprep build-shards /raw --outt shards/", "No such option"),
        ("avtrain pretrain shards/ --task avx", "'avx' is not one of"),
        ("avtrain pretrian shards/", "has no command 'pretrian'"),
        ("avtrain pretrain s3://b/set --epochs none", "not a valid integer"),
        (
            "torchrun --nproc-per-node 4 -m avtrain pretrain shards/ --presett paper",
            "No such option",
        ),
        ("make demos", "No rule to make target"),
        ("python benchmarks/speed.py VIDEO", "does not exist"),
        ("python benchmarks/build.py --clips VIDEO SOUND", "has no option --clips"),
        ("python -m benchmarks.study --plans", "has no option --plans"),
        ("python -m benchmarks.training_memory SHARDS --out RUN --stepss 3", "No such option"),
        ("pip install 'avsa360[cloud]'", "no extra cloud"),
        ("pip download --no-deps no-such-package", "no-such-package does not exist"),
        ("pip install 'dist/avsa360-0.0.1-py3-none-any.whl[train]'", "does not exist"),
        ("pip install -c constrain.txt -e .", "constrain.txt does not exist"),
        (".venv/bin/pytest tests/nothing", "tests/nothing does not exist"),
        ('eval "$(_AVPREP_COMPLETE=tcsh_source avprep)"', "no completion for tcsh_source"),
        ('eval "$(_AVTRAIN_COMPLETE=bash_source avprep)"', "no completion of ours"),
        ("sbatch train.sh", "no test knows how to check"),
        ("#!/bin/bash\nsrun avprep build-shards /raw --output x", "No such option"),
        ("#!/bin/bash\nif true; avprep merge x", "syntax error"),
        ("#!/bin/bash\necho done", "has no command of ours"),
    ],
)
def test_a_stale_command_is_found(command: str, reason: str) -> None:
    (words,) = commands_of(Block("bash", command))
    with pytest.raises(Stale, match=re.escape(reason)):
        check(words)


def test_a_command_that_fails_is_found(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace.root)
    with pytest.raises(AssertionError, match="nowhere"):
        workplace.run(["avprep", "inspect", "/nowhere"])


def test_a_block_that_no_test_would_run_is_refused() -> None:
    with pytest.raises(Stale, match="marked as text"):
        blocks_of("# Title\n\n```text\navprep info shards/\n```\n")
    with pytest.raises(Stale, match="'sh'"):
        blocks_of("# Title\n\n```sh\navprep info shards/\n```\n")
