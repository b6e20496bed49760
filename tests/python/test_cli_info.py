"""`python -m faiss_ext info`, and what all commands share."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys

import faiss
import numpy as np
import pytest

import faiss_ext
from conftest import package_environment


def entries(text: str) -> dict[str, str]:
    """The report; lines that continue an entry are joined to it."""
    joined = re.sub(r"\n {15}", " ", text)
    return {
        line[:14].strip(): line[15:].strip() for line in joined.splitlines()
    }


def test_it_names_versions_and_places(cli):
    outcome = cli("info")
    assert outcome.status == 0 and outcome.err == ""
    report = entries(outcome.out)
    package = os.path.dirname(faiss_ext.__file__)
    assert report["faiss_ext"] == f"{faiss_ext.__version__}, {package}"
    place = os.path.dirname(faiss.__file__)
    assert report["Faiss"] == f"{faiss.__version__}, {place}"
    assert report["NumPy"] == np.__version__
    assert report["Python"].startswith(platform.python_version())
    assert report["compiled with"]


def test_it_tells_whether_the_native_part_is_there(cli, monkeypatch):
    monkeypatch.setattr(faiss_ext, "native_problem", "libx.so is missing")
    report = entries(cli("info").out)
    assert report["native part"] == "not in use: libx.so is missing"
    monkeypatch.setattr(faiss_ext, "native_problem", None)
    assert entries(cli("info").out)["native part"] == "in use"


def test_it_tells_how_many_gpus_there_are_and_why(cli, monkeypatch):
    monkeypatch.setattr(
        "faiss_ext.cli.commands.info.gpu_count", lambda: (3, "3 GPUs found")
    )
    assert entries(cli("info").out)["GPUs"] == "3 (3 GPUs found)"


@pytest.mark.parametrize("chosen, answer", [
    ("", "by the exact engine on GPUs of compute capability 9.0, else"),
    ("faiss", "by Faiss' kernels"),
    ("exact", "by the exact engine"),
    ("fast", "none: FAISS_EXT_SEARCH is 'fast'; give 'exact' or 'faiss'"),
])
def test_it_tells_by_what_indexes_search(cli, monkeypatch, chosen, answer):
    monkeypatch.setenv("FAISS_EXT_SEARCH", chosen)
    assert entries(cli("info").out)["searches"].startswith(answer)


def test_it_fits_on_a_screen(cli):
    lines = cli("info").out.splitlines()
    assert len(lines) <= 12, lines


def test_it_runs_as_a_module_of_its_own_process(cli_process):
    outcome = cli_process("info")
    assert outcome.status == 0 and outcome.err == ""
    assert outcome.out.startswith("faiss_ext ")


def test_the_version_can_be_asked_for(cli):
    assert cli("--version").out == f"faiss_ext {faiss_ext.__version__}\n"


def test_help_names_the_commands(cli):
    outcome = cli("--help")
    assert outcome.status == 0
    assert "knn" in outcome.out and "info" in outcome.out


def test_help_of_a_command_is_its_docstring(cli):
    assert "Exact nearest neighbours of" in cli("knn", "--help").out


def test_a_closed_standard_output_is_no_traceback():
    done = subprocess.run(
        ["sh", "-c", '"$0" -m faiss_ext info >&-', sys.executable],
        env=package_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0 and done.stderr == ""


def test_without_faiss_the_package_says_what_to_install():
    script = (
        "import sys; sys.modules['faiss'] = None\n"
        "try: import faiss_ext\n"
        "except ModuleNotFoundError as error: print(error.name, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=package_environment(),
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("faiss faiss_ext extends Faiss")
    assert "install faiss-cpu" in done.stdout
