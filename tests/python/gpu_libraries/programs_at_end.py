"""Programs of their own for what happens at the end of a process and in forked
ones; with stand-ins, on the simulated CUDA runtime."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

STAND_INS = os.environ.get("FAISS_EXT_STAND_INS") == "1"

#: How often what depends on the moment is tried: on a GPU, where each process
#: takes seconds to begin, once.
ATTEMPTS = 3 if STAND_INS else 1


def run_program(text, seconds=60, **variables):
    """A process that must end well, and soon, when it has printed "done", and say
    nothing else. `variables` are put in front of the text."""
    paths = [path for path in sys.path if path]
    head = f"import sys; sys.path[:0] = {paths!r}\n" + "".join(
        f"{name} = {value!r}\n" for name, value in variables.items()
    )
    done = subprocess.run(
        # Python 3.12 and newer warn of every fork beside threads.
        [sys.executable, "-W", "ignore:This process:DeprecationWarning",
         "-c", head + text], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=seconds)
    if (done.returncode, done.stdout, done.stderr) != (0, "done\n", ""):
        pytest.fail(
            f"status {done.returncode}, {done.stdout!r}\n{done.stderr}")
