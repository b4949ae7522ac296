"""Faults on purpose, each of which must be seen: `python -m tests.attack.planted FOLDER`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.attack.judge import judge
from tests.attack.runner import Decoy, adopt_orphans, watch
from tests.attack.sandbox import Sandbox

_LIMIT_S = 1.5
_MEMORY_LIMIT_S = 60.0  # two gigabytes of pages, on a machine that may be busy
_HELD: list[socket.socket] = []
_EATEN: list[bytes] = []


def _listen(box: Sandbox, port: int) -> None:
    _HELD.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    _HELD[0].bind(("127.0.0.1", 0))
    time.sleep(0.5)


def _eat(box: Sandbox, port: int) -> None:
    _EATEN.append(b"x" * 2_050_000_000)


def _multiply(box: Sandbox, port: int) -> None:
    for _ in range(60):
        if os.fork() == 0:
            time.sleep(60)
    time.sleep(60)


FAULTS: dict[str, Callable[[Sandbox, int], object]] = {
    "outside: changed": lambda box, port: (box.outside / "victim.txt").write_text("changed"),
    "outside: vanished": lambda box, port: (box.home / "victim.txt").unlink(),
    "outside: appeared": lambda box, port: (box.temporary / "left").write_text(""),
    "hang": lambda box, port: time.sleep(60),
    "signal": lambda box, port: os.abort(),
    "status": lambda box, port: sys.exit(7),
    "traceback": lambda box, port: [][0],
    "sentence: exit status": lambda box, port: sys.exit(2),
    "sentence: one of": lambda box, port: sys.exit(sys.stderr.write("Error: " + "x" * 9000) and 2),
    "sentence: several": lambda box, port: sys.exit(sys.stderr.write("Error: a\nb\n") and 2),
    "memory": _eat,
    "processes": _multiply,
    "left": lambda box, port: subprocess.Popen(["sleep", "60"], start_new_session=True),
    "characters: 'a": lambda box, port: print("a\x1b[2J"),
    "characters: a name": lambda box, port: print("a\nEVIL-LINE"),
    "calls": lambda box, port: socket.create_connection(("127.0.0.1", port)).close(),
    "listens": _listen,
    "output": lambda box, port: print("a" * 2_000_000),
    "unseen": lambda box, port: None,
    "broken": lambda box, port: sys.exit(1),
}
"""By the words with which the sentence about it begins."""


def main() -> None:
    adopt_orphans()
    decoy = Decoy()
    for number, (fault, body) in enumerate(FAULTS.items()):
        box = Sandbox(Path(sys.argv[1]) / str(number))
        before = box.snapshot(())
        limit_s = _MEMORY_LIMIT_S if fault == "memory" else _LIMIT_S
        outcome = watch(
            lambda body=body, box=box: body(box, decoy.port),  # type: ignore[misc]
            *(box.inside, box.variables(), decoy, limit_s),
        )
        wrong = judge(
            outcome, before, box.snapshot(()), refuses={"unseen": True, "broken": False}.get(fault)
        )
        seen = any(sentence.startswith(fault) for sentence in wrong)
        print(f"{'seen' if seen else 'MISSED'}  {fault}  {[text[:100] for text in wrong]}")
    box = Sandbox(Path(sys.argv[1]) / "healthy")
    before = box.snapshot(("new",))
    outcome = watch(
        lambda: Path("new").write_text(""), box.inside, box.variables(), decoy, _LIMIT_S
    )
    print(f"healthy  {judge(outcome, before, box.snapshot(('new',)))}")


if __name__ == "__main__":
    main()
