"""What `--help` says: examples that run, under the name of the program."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

import faiss_ext
from conftest import ROOT, package_environment
from faiss_ext.cli import main as program
from faiss_ext.cli.files.result_files import write_vecs

COMMANDS = sorted(program._COMMANDS)


def examples(help_text: str) -> list[list[str]]:
    """The command lines under "Examples:"."""
    text = help_text.partition("Examples:\n")[2].replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.strip()]


@pytest.fixture
def files(in_own_folder, rng):
    """What the examples name."""
    x = rng.standard_normal((60, 8)).astype("float32")
    write_vecs("base.fvecs", x)
    write_vecs("query.fvecs", x[:7])
    np.save("words.npy", x)
    np.save("doubles.npy", x.astype("float64"))
    pathlib.Path("script.py").write_text("import faiss, sys; print(sys.argv)")
    package = pathlib.Path("package")
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copy("script.py", package / "module.py")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_of_the_help_runs(cli, cli_process, files, command):
    found = examples(cli(command, "--help").out)
    assert found
    for words in found:
        assert words[:4] == ["python", "-m", "faiss_ext", command]
        outcome = cli_process(*words[3:])
        if command == "profile" and not faiss_ext.get_num_gpus():
            # It was read, and what is missing is the GPU alone.
            assert outcome.status == 2
            assert outcome.err.startswith("error: profile times searches on a GPU")
            continue
        assert outcome.status == 0, outcome.err
        if "--out" in words:
            assert os.path.exists(words[words.index("--out") + 1])


def as_script(*args: object) -> subprocess.CompletedProcess:
    """What the installed script does (pyproject.toml), under its name."""
    (target,) = re.findall(
        r'^faiss-ext = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    module, _, function = target.partition(":")
    pathlib.Path("faiss-ext").write_text(
        f"import sys\nfrom {module} import {function}\n"
        f"sys.exit({function}())\n")
    return subprocess.run(
        [sys.executable, "faiss-ext", *map(str, args)],
        env=package_environment(), capture_output=True, text=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_script_is_the_module_under_another_name(cli_process, command):
    done = as_script(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: faiss-ext {command} ")
    for words in examples(done.stdout):
        assert words[:2] == ["faiss-ext", command]
    called = cli_process(command, "--help").out

    def words(text):
        # Other names break lines elsewhere.
        return text.replace("python -m faiss_ext", "faiss-ext").split()

    assert words(called) == words(done.stdout)


def test_the_script_gives_results_errors_and_status(files):
    job = ("knn", "--base", "words.npy", "--query", "words.npy", "--out", "r.npz")
    assert as_script(*job, "-k", 3).returncode == 0
    assert os.path.exists("r.npz")
    done = as_script(*job, "-k", 61)
    assert done.returncode == 2 and done.stderr.startswith("error: -k 61 is more")
    done = as_script("find")
    assert done.returncode == 2 and "(see faiss-ext --help)" in done.stderr
