"""The machine: what is installed, and what it is measured on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from benchmarks.gpu.stages import Job, Notes

NEEDED = {
    "torch": "torch",
    "numpy": "numpy",
    "av": "av",
    "soundfile": "soundfile",
    "click": "click",
    "tqdm": "tqdm",
    "msgspec": "msgspec",
    "matplotlib": "matplotlib",
    "cv2": "opencv-python-headless",
}
"""Packages by the names of their modules."""


def missing_packages(has_peer: bool) -> list[str]:
    """Packages that are not installed, by the names that pip knows."""
    needed = NEEDED | ({"yaml": "PyYAML"} if has_peer else {})
    return [package for module, package in needed.items() if find_spec(module) is None]


def run(job: Job, notes: Notes) -> None:
    import torch

    from avtrain.runtime.device import pick_device

    notes.add("python", platform.python_version())
    notes.add("torch", torch.__version__)
    notes.add("other packages", ", ".join(_versions()))
    notes.add("cores", len(os.sched_getaffinity(0)))
    notes.add("processor", _processor())
    if job.device != "cuda":
        return
    pick_device(job.device)
    properties = torch.cuda.get_device_properties(0)
    notes.add("GPU", properties.name)
    notes.add("GPU memory, GB", round(properties.total_memory / 1e9, 1))
    notes.add("compute capability", f"{properties.major}.{properties.minor}")
    notes.add("multiprocessors", properties.multi_processor_count)
    notes.add("CUDA", str(torch.version.cuda))
    notes.add("cuDNN", str(torch.backends.cudnn.version()))
    notes.add("NCCL", ".".join(map(str, torch.cuda.nccl.version())))
    notes.add("driver", _driver())
    notes.add("bf16 supported", torch.cuda.is_bf16_supported())
    notes.add("TF32 for convolutions, as PyTorch sets it", torch.backends.cudnn.allow_tf32)
    notes.add("TF32 for products, as PyTorch sets it", torch.backends.cuda.matmul.allow_tf32)


def _versions() -> list[str]:
    found = []
    for package in [*NEEDED.values(), "triton", "torchvision"]:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    if sys.platform == "linux":
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "unknown: nvidia-smi is not installed"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
