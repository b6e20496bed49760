"""What a record tells of the machine and the software."""

from __future__ import annotations

import datetime
import importlib
import json
import os
import pathlib
import platform
import subprocess

_ROOT = pathlib.Path(__file__).resolve().parents[2]

_GPU_FIELDS = (
    "name", "driver_version", "memory.total", "pcie.link.gen.current",
    "pcie.link.width.current", "power.limit",
)


def machine() -> dict:
    """Date, commit and host. No names of hosts or people."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime(
            "%Y-%m-%d %H:%M UTC"
        ),
        "commit": _commit(),
        "host": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(
                os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
            ),
            "system": platform.platform(),
        },
    }


def environment(native) -> dict:
    """The machine, versions, and devices."""
    return {
        **machine(),
        "simulated": native.simulated,
        "gpu": _gpu(),
        "cuda": native.cuda_versions(),
        "versions": {
            "python": platform.python_version(),
            **{
                name: _version(name)
                for name in ("faiss", "faiss_ext", "numpy", "torch", "cupy",
                             "cuvs", "flashlib")
            },
        },
    }


def _commit() -> str:
    """Of the checkout, or what a bundle says of the one it was made from."""
    manifest = _ROOT / "MANIFEST.json"
    if manifest.exists():
        return json.loads(manifest.read_text(encoding="utf-8"))["commit"]
    found = _output(
        "git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12"
    )
    return found or "unknown"


def _gpu() -> dict[str, str]:
    line = _output(
        "nvidia-smi", f"--query-gpu={','.join(_GPU_FIELDS)}",
        "--format=csv,noheader",
    ).partition("\n")[0]
    values = [value.strip() for value in line.split(",")]
    return dict(zip(_GPU_FIELDS, values)) if line else {}


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _version(name: str) -> str | None:
    try:
        return str(importlib.import_module(name).__version__)
    except Exception:  # missing, or broken in its own way
        return None


def _output(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
