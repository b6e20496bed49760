"""The script that makes a virtual environment, with a made-up Python."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

from conftest import ROOT

PYTHON = """#!/bin/sh
echo "$@" | head -n 1 >>"$STATE/calls"
case "$*" in
    *version_info*) [ ! -e "$STATE/too_old" ] ;;
    -V) echo "Python 3.9.2" ;;
    *sys.version*) cat "$STATE/version" ;;
    *ensurepip*) [ -e "$STATE/has_venv" ] ;;
    "-m venv"*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *"pip install"*) [ ! -e "$STATE/offline" ] ;;
esac
"""
DPKG_QUERY = """#!/bin/sh
case "$*" in
    *python3-venv*) [ -e "$STATE/has_venv" ] && echo "install ok installed" ;;
    *) echo "install ok installed" ;;
esac
"""
APT = """#!/bin/sh
echo "apt-get $@" >>"$STATE/calls"
case "$*" in *python3-venv*) touch "$STATE/has_venv" ;; esac
"""
ID = """#!/bin/sh
cat "$STATE/uid"
"""


@pytest.fixture
def machine(in_own_folder):
    """A tree with the script, and a folder of programs that are made up."""

    class Machine:
        tree = in_own_folder / "tree"
        state = in_own_folder / "state"
        programs = in_own_folder / "bin"

        def set(self, name: str, value: str = "") -> None:
            (self.state / name).write_text(value)

        def run(self, **environment: str) -> subprocess.CompletedProcess:
            """Run the script; `calls` are those of this run."""
            (self.state / "calls").write_text("")
            return subprocess.run(
                [self.tree / "cmake" / "setup" / "cpu-env.sh"],
                env={
                    "PATH": f"{self.programs}:/usr/bin:/bin",
                    "STATE": str(self.state),
                    "HOME": str(self.state),
                    **environment,
                },
                capture_output=True,
                text=True,
            )

        @property
        def interpreter(self) -> pathlib.Path:
            return self.tree / ".cache" / "cpu-venv" / "bin" / "python"

        @property
        def calls(self) -> str:
            return (self.state / "calls").read_text()

    made = Machine()
    setup = made.tree / "cmake" / "setup"
    for folder in (setup, made.state, made.programs):
        folder.mkdir(parents=True)
    for name in ("common.sh", "cpu-env.sh"):
        shutil.copy(ROOT / "cmake" / "setup" / name, setup)
    made_up = {
        "python3": PYTHON,
        "apt-get": APT,
        "dpkg-query": DPKG_QUERY,
        "id": ID,
    }
    for name, text in made_up.items():
        program = made.programs / name
        program.write_text(text)
        program.chmod(0o755)
    made.set("version", "3.11")
    made.set("uid", "1000")
    made.set("has_venv")
    return made


def error(done: subprocess.CompletedProcess) -> str:
    """The line with which the script stopped."""
    assert done.returncode == 1 and done.stdout == ""
    return done.stderr.splitlines()[-1]


def test_it_makes_an_environment_with_the_packages(machine):
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert machine.interpreter.is_file()
    assert "faiss-cpu numpy scikit-learn matplotlib tqdm" in machine.calls


def test_a_second_run_only_looks(machine):
    machine.run()
    second = machine.run()
    assert second.returncode == 0 and second.stderr == ""
    assert "-m venv" not in machine.calls
    assert "pip install" not in machine.calls


def test_another_python_makes_it_again(machine):
    machine.run()
    machine.set("version", "3.12")
    machine.run()
    assert "pip install" in machine.calls


def test_an_interpreter_that_stopped_working_makes_it_again(machine):
    machine.run()
    machine.interpreter.unlink()
    assert machine.run().returncode == 0
    assert "pip install" in machine.calls


def test_a_failed_installation_is_not_taken_for_a_finished_one(machine):
    machine.set("offline")
    assert "pip cannot install" in error(machine.run())
    (machine.state / "offline").unlink()
    assert machine.run().returncode == 0
    assert "pip install" in machine.calls


def test_root_gets_what_is_missing_from_the_distribution(machine):
    (machine.state / "has_venv").unlink()
    machine.set("uid", "0")
    done = machine.run()
    assert done.returncode == 0, done.stderr
    calls = machine.calls.splitlines()
    (line,) = [c for c in calls if c.startswith("apt-get install ")]
    assert line.endswith(" python3-venv")


def test_others_are_told_what_is_missing(machine):
    (machine.state / "has_venv").unlink()
    assert error(machine.run()) == (
        "error: missing system packages: python3-venv. Fix: run 'apt-get "
        "install python3-venv' as root"
    )
    assert "apt-get" not in machine.calls


def test_a_python_of_choice_that_makes_no_environments_is_refused(machine):
    (machine.state / "has_venv").unlink()
    machine.set("uid", "0")
    line = error(machine.run(PYTHON=str(machine.programs / "python3")))
    assert "cannot make virtual environments" in line
    assert "apt-get" not in machine.calls


def test_an_old_python_is_refused(machine):
    machine.set("too_old")
    assert "python3 is Python 3.9.2, expected Python 3.10" in error(
        machine.run()
    )


def test_a_python_of_choice_that_is_not_there_is_refused(machine):
    machine.set("uid", "0")
    line = error(machine.run(PYTHON="nosuch"))
    assert line.startswith("error: nosuch is not installed")
    assert "apt-get" not in machine.calls


def test_a_python_of_choice_that_is_none_is_refused_in_one_line(machine):
    done = machine.run(PYTHON="/bin/ls")
    assert done.stderr.splitlines() == [error(done)]
    assert error(done).startswith("error: /bin/ls is no Python interpreter. Fix: ")
