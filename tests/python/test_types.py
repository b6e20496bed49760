"""What mypy and pyright make of programs that use the package, and of the
package itself. The programs are in `typed/`; this runs beside each Faiss that the
suites have, one with stubs and one without."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import faiss_ext
import pytest
from check_tools import ROOT, tool

PROGRAMS = pathlib.Path(__file__).parent / "typed"
FAISS_HAS_STUBS = (
    pathlib.Path(importlib.util.find_spec("faiss").origin).with_suffix(".pyi").exists()
)
WITH_STUBS = pytest.mark.skipif(
    not FAISS_HAS_STUBS, reason="this Faiss has no stubs"
)
#: The sources, which is where the checkers' settings are too.
IN_CHECKOUT = pytest.mark.skipif(
    not (ROOT / "faiss_ext/__init__.pyi").exists(), reason="needs the sources"
)


def run(*command: object, cwd: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """A program that finds the package, as one that is installed."""
    package = str(pathlib.Path(faiss_ext.__file__).parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [*map(str, command)], cwd=cwd, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True,
    )


def errors_of_mypy(program: pathlib.Path, folder: pathlib.Path) -> dict[int, str]:
    """By line: what mypy finds in a program where the package and Faiss are
    installed (its own search path is this process')."""
    done = run(
        sys.executable, "-m", "mypy", "--strict", "--no-error-summary",
        "--hide-error-context", "--cache-dir", folder / "mypy", program,
        cwd=folder,
    )
    # 1 is also what Python says where there is no mypy.
    assert done.returncode in (0, 1) and not done.stderr, done.stderr
    found = re.findall(r"^(.+?):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    assert all(pathlib.Path(path).name == program.name for path, _, _ in found)
    return {int(line): text for _, line, text in found}


def errors_of_pyright(program: pathlib.Path, folder: pathlib.Path) -> dict[int, str]:
    """The same of pyright."""
    project = folder / "pyrightconfig.json"
    project.write_text(json.dumps(
        {"typeCheckingMode": "standard", "include": [str(program)]}
    ))
    done = run(
        tool("basedpyright"), "-p", project, "--pythonpath", sys.executable,
        "--outputjson", cwd=folder,
    )
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 1
    return {
        entry["range"]["start"]["line"] + 1: entry["message"]
        for entry in report["generalDiagnostics"] if entry["severity"] == "error"
    }


CHECKERS = [errors_of_mypy, errors_of_pyright]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where the checkers work. mypy reads Faiss' and NumPy's stubs once."""
    return tmp_path_factory.mktemp("types")


each_checker = pytest.mark.parametrize(
    "errors_of", CHECKERS, ids=["mypy", "pyright"]
)
each_faiss = pytest.mark.parametrize("kind", [
    "with_any_faiss", pytest.param("with_stubs_of_faiss", marks=WITH_STUBS),
])


@each_checker
@each_faiss
def test_right_programs_have_the_types_that_they_assert(errors_of, kind, folder):
    assert errors_of(PROGRAMS / f"{kind}.py", folder) == {}


@each_checker
@each_faiss
def test_each_mistake_is_an_error(errors_of, kind, folder):
    program = PROGRAMS / f"wrong_{kind}.py"
    expected = {
        number for number, line in enumerate(program.read_text().splitlines(), 1)
        if line.endswith("  # error")
    }
    assert len(expected) > 5
    assert errors_of(program, folder).keys() == expected


@IN_CHECKOUT
@WITH_STUBS
def test_the_package_passes_mypy_strictly(folder):
    done = run(
        sys.executable, "-m", "mypy", "--cache-dir", folder / "mypy",
        "--python-executable", sys.executable, "-p", "faiss_ext", cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Success: no issues found in" in done.stdout


@IN_CHECKOUT
@WITH_STUBS
def test_the_stubs_pass_pyright():
    done = run(
        tool("basedpyright"), "-p", ROOT, "--pythonpath", sys.executable,
        "--outputjson", cwd=ROOT,
    )
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] > 2
    assert not [
        entry for entry in report["generalDiagnostics"]
        if entry["severity"] == "error"
    ]


def test_the_package_says_that_it_is_typed():
    folder = pathlib.Path(faiss_ext.__file__).parent
    assert (folder / "py.typed").exists()
    for name in ("__init__", "_with_native", "_native/swigfaiss_ext"):
        assert (folder / f"{name}.pyi").exists()
