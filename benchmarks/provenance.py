"""What a published number must name to be trusted: the command, the commit, when, and on what."""

import datetime
import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def provenance(device: torch.device) -> dict[str, str | int]:
    """Return what a JSON file of results starts with."""
    return {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "commit": commit(), "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version(),
    }


def machine() -> dict:
    """Return what benchmarks ran on: ``name`` for a file, processor, cores of this process, memory, GPU, versions."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    processor = _line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    memory = _line("/proc/meminfo", "MemTotal")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ("numpy", "scipy", "torch", "h5py", "pillow", "opencv-python-headless", "simplejpeg")
    return {
        "name": re.sub("[^a-z0-9]+", "_", f"{gpu or processor} {cores} cores".lower()).strip("_"),
        "processor": processor, "cores": cores, "gpu": gpu,
        "memory_gib": round(int(memory.split()[0]) / 2**20, 1) if memory else None,
        "system": platform.platform(), "python": platform.python_version(), "date": datetime.date.today().isoformat(),
        "versions": {package: _version(package) for package in packages},
    }


def _line(path: str, key: str) -> str | None:
    """What stands after a key in one of Linux's files."""
    if not Path(path).exists():
        return None
    lines = (line.partition(":") for line in Path(path).read_text(encoding="utf-8").splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), None)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str:
    """Return the commit of this checkout; where there is no git, what DUALFACE_COMMIT says, or ``unknown``."""
    described = "git describe --always --dirty --abbrev=40 --exclude=*".split()
    try:
        found = subprocess.run(described, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("DUALFACE_COMMIT", "unknown")
    return found.strip()
