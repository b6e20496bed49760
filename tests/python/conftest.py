"""What the tests of the Python package share."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

try:
    import faiss_ext
except ModuleNotFoundError as error:
    if error.name != "faiss_ext":
        raise
    sys.path.insert(0, str(ROOT))
    import faiss_ext

from faiss_ext.__main__ import main  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    # A shell lets what it starts in the background ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Added here and not on the command line: importing some versions of Faiss
    # warns, which is not for these tests to judge.
    config.addinivalue_line("filterwarnings", "error")


class Outcome(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def in_own_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> pathlib.Path:
    """Every test works in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command in this process."""

    def run(*args: object) -> Outcome:
        capsys.readouterr()
        try:
            status = main([str(arg) for arg in args])
        except SystemExit as stop:
            status = stop.code
        return Outcome(status, *capsys.readouterr())

    return run


@pytest.fixture
def cli_process() -> Callable[..., Outcome]:
    """Run a command in a process of its own."""

    def run(*args: object, **options: object) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "faiss_ext", *map(str, args)],
            env=package_environment(),
            capture_output="stderr" not in options,
            text=True,
            **options,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


def package_environment(**more: str) -> dict[str, str]:
    """The environment in which a process finds the package under test."""
    found = str(pathlib.Path(faiss_ext.__file__).parents[1])
    # Last, in case that is where all packages are: what the tests put before them
    # stays there.
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), found]))
    return {**os.environ, "PYTHONPATH": path, **more}


@pytest.fixture
def refused(
    cli: Callable[..., Outcome], in_own_folder: pathlib.Path
) -> Callable[..., str]:
    """Run a command that has to fail: with status 2, one line, no traceback,
    and every file as it was. Returns the line."""

    def contents() -> dict[pathlib.Path, bytes]:
        files = [p for p in in_own_folder.rglob("*") if p.is_file()]
        return {p: p.read_bytes() for p in files}

    def run(*args: object) -> str:
        before = contents()
        outcome = cli(*args)
        assert outcome.status == 2, outcome
        assert contents() == before
        assert outcome.out == ""
        lines = outcome.err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert errors == lines[-1:], outcome.err
        assert "Traceback" not in outcome.err
        return errors[0]

    return run


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(1797)
