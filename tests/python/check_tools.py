"""The programs that read Python code without running it."""

from __future__ import annotations

import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def tool(name: str) -> pathlib.Path:
    """A program of the environment that `cmake/setup/tools-env.sh` makes, as
    `make test` has it done; skips where it is not."""
    program = ROOT / ".cache/tools-venv/bin" / name
    if not program.exists():
        pytest.skip(f"no {name}; cmake/setup/tools-env.sh gets it")
    return program
