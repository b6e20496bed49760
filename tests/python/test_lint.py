"""Ruff finds nothing in the Python code, by the rules in pyproject.toml."""

from __future__ import annotations

import pathlib
import subprocess

from check_tools import ROOT, tool


def ruff(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(tool("ruff")), "check", "--no-cache", "--quiet",
         "--output-format", "concise", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True,
    )


def test_ruff_finds_nothing():
    done = ruff(".")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_ruff_would_find_something(in_own_folder: pathlib.Path):
    program = in_own_folder / "program.py"
    program.write_text("import os\nx = [i for i in range(3)]\n")
    done = ruff("--config", ROOT / "pyproject.toml", program)
    assert done.returncode == 1
    assert "F401" in done.stdout and "C416" in done.stdout
