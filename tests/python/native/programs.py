"""Programs of their own: what may hang, or happens when a process ends."""

from __future__ import annotations

import os
import subprocess
import sys


def run_program(text, **environment):
    """A process that must end well, and soon, when it has printed "done"."""
    paths = [path for path in sys.path if path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{text}"],
        env={**os.environ, **environment},
        capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", ""), done
