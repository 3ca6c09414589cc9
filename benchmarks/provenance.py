"""What a published number must name to be trusted: the command, the commit, when, and on what."""

import datetime
import os
import platform
import shlex
import subprocess
import sys
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


def commit() -> str:
    """Return the commit of this checkout; where there is no git, what DUALFACE_COMMIT says, or ``unknown``."""
    described = "git describe --always --dirty --abbrev=40 --exclude=*".split()
    try:
        found = subprocess.run(described, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("DUALFACE_COMMIT", "unknown")
    return found.strip()
