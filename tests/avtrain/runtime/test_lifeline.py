"""Processes that hold a lifeline end with their parent, though they ignore the signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.processes import lives

PARENT = """
import multiprocessing, os, signal, sys, time
from avtrain.runtime.lifeline import Lifeline, hold
from avtrain.runtime.signals import leave_signals_to_parent

def work(end):
    leave_signals_to_parent()
    hold(end)
    os.write(1, b"%d\\n" % os.getpid())  # at once: of two prints, lines can mix
    time.sleep(600)

context = multiprocessing.get_context("fork")
line, other = Lifeline(), Lifeline()
for _ in range(3):  # later ones must not keep the line of the first
    context.Process(target=work, args=(line.end,), daemon=True).start()
sys.stdin.readline()
{end}
"""
ENDS = {
    "exit": "",
    "cut": "line.cut()\ntime.sleep(600)",
    "error": "raise ValueError",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("end", ENDS)
def test_workers_end_with_their_parent(end: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(end=ENDS[end])],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    workers = [process.stdout.readline().strip() for _ in range(3)]
    for worker in workers:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            os.kill(int(worker), number)
    time.sleep(0.1)
    assert all(map(lives, workers))
    process.stdin.write("\n")
    process.stdin.flush()
    deadline = time.monotonic() + 20
    while any(map(lives, workers)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(lives, workers))
    if end == "cut":
        process.kill()
    process.wait(20)
    process.stdin.close()
    process.stdout.close()


@pytest.mark.parametrize("chosen", ["", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_threads_spin_shortly_unless_the_user_decides(chosen: str) -> None:
    code = "import os, avtrain; print(os.environ.get('GOMP_SPINCOUNT'))"
    environment = {"PYTHONPATH": str(ROOT)} | ({chosen: "9"} if chosen else {})
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    wanted = {"": "2000", "OMP_WAIT_POLICY": "None", "GOMP_SPINCOUNT": "9"}
    assert done.stdout.strip() == wanted[chosen]


SMALL_MEMORY = ["unshare", "-m", "sh", "-c"]
MOUNT = "mount -t tmpfs -o size={size} tmpfs /dev/shm"


def test_little_shared_memory_is_said(tmp_path: Path) -> None:
    """A shared memory as a container has, for real."""
    if subprocess.run([*SMALL_MEMORY, MOUNT.format(size="8m")], check=False).returncode:
        pytest.skip("needs the right to mount")
    code = (
        "from avtrain.runtime.shared_memory import Room, share; import torch\n"
        "room, batch = Room.measure(1, 3), [torch.zeros(1000, 1000)]\n"
        "for waiting in (1, 3):\n"
        "    try:\n"
        "        Room.measure(1, waiting).check(batch); share(batch); print('fits')\n"
        "        batch += [torch.zeros(1000, 1000)]\n"
        "    except Exception as error: print(error)\n"
        "try: share([torch.zeros(3000, 1000)]); print('no error')\n"
        "except Exception as error: print(error)\n"
    )
    done = subprocess.run(
        [*SMALL_MEMORY, f'{MOUNT.format(size="8m")} && exec {sys.executable} -c "$CODE"'],
        env=os.environ | {"PYTHONPATH": str(ROOT), "CODE": code},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    fits, refused, full = done.stdout.splitlines()
    assert fits == "fits"
    assert "/dev/shm has 4 MB free of 8 MB, but 3 batches of 1 loader process take 24 MB" in refused
    assert "shared memory is short (" in full
