"""The stages in their order, with the longest time of each: what matters most comes first."""

from __future__ import annotations

from benchmarks.gpu import correctness, loading, machine, rate, runs, speed
from benchmarks.gpu.stages import Stage

STAGES = (
    Stage("machine", machine.run, 30),
    Stage("correctness", correctness.run, 90),
    Stage("set", runs.run_small_set, 60),
    Stage("kill and resume", runs.run_killed, 80),
    Stage("group of one process", runs.run_group_of_one, 60),
    Stage("speed", speed.run, 130),
    Stage("share of the matrix rate", rate.run, 60),
    Stage("loading", loading.run, 90),
    Stage("memory", speed.run_memory, 60),
    Stage("compile", correctness.run_compiled, 80),
)
