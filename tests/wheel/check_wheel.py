#!/usr/bin/env python3
"""Try a wheel that carries Faiss as its user would, without a GPU.

    tests/wheel/check_wheel.py WHEEL BUILD_DIR

Looks into the wheel, installs it with the interpreter that runs this into a
fresh virtual environment, and searches with it on the simulated CUDA runtime of
BUILD_DIR. Takes half a minute and needs pip's package index. The first thing
that is wrong ends it with status 1.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent


def check(right, problem):
    """End the program unless it is right."""
    if not right:
        sys.exit(f"error: the wheel is wrong: {problem}")


def run(*command, may_fail=False, **variables):
    """Run a program as if nothing of Faiss or CUDA were set up; its output."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "LD_LIBRARY_PATH", "LD_PRELOAD")
    }
    done = subprocess.run(
        [str(part) for part in command],
        env={**inherited, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    check(
        may_fail or done.returncode == 0,
        f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}",
    )
    return done.stdout


def check_contents(wheel, folder):
    """The files of the wheel, and where its libraries look for others."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(folder)
    for needed in (
        "faiss/__init__.py",
        "faiss/_swigfaiss.so",
        "faiss/libfaiss.so",
        "faiss_ext/__init__.py",
        "faiss_ext/contrib/__init__.py",
        "faiss_ext/py.typed",
        "faiss_ext/_swigfaiss_ext.so",
        "faiss_ext/swigfaiss_ext.py",
    ):
        check(needed in names, f"it lacks {needed}")
    strange = [
        name
        for name in names
        if not re.match(r"(faiss|faiss_ext|faiss_ext\.libs|faiss_ext-[^/]*\.dist-info)/", name)
        or re.search(r"\.(cpp|h|cu|swig|pyc|a)$|CMakeLists", name)
    ]
    check(not strange, f"it holds {strange}")
    texts = {
        pathlib.PurePath(name).stem for name in names if ".dist-info/licenses/" in name
    }
    for name in names:
        library = re.match(r"faiss_ext\.libs/(lib[a-z]+)", name)
        check(
            library is None or any(library[1].startswith(text) for text in texts),
            f"it carries {name} without its licence (there are {sorted(texts)})",
        )
    check("faiss" in texts, "it carries Faiss without its licence")
    check("LICENSE" in texts, "it has no licence of its own")
    for path in folder.rglob("*.so*"):
        tags = run("readelf", "-d", path)
        for where in re.findall(r"(?:RPATH|RUNPATH).*\[(.*)\]", tags):
            check(
                all(part.startswith("$ORIGIN") for part in where.split(":")),
                f"{path.name} looks for libraries in {where}",
            )
        check("libcudart.so" not in path.name, f"it carries {path.name}")


def check_search(python, site, simulator):
    """A search by the wheel's own libraries."""
    run(
        python, HERE / "search.py", site,
        # The preloaded library is linked to libfaiss: let that be the wheel's.
        LD_LIBRARY_PATH=f"{simulator}:{site / 'faiss'}",
        LD_PRELOAD=str(simulator / "libcuda_sim_faiss.so"),
    )


def main():
    wheel, build = (pathlib.Path(part).resolve() for part in sys.argv[1:])
    simulator = build / "cuda_sim"
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        work = pathlib.Path(work)
        check_contents(wheel, work / "contents")

        print(f"==> trying {wheel.name}", file=sys.stderr, flush=True)
        run(sys.executable, "-m", "venv", work / "venv")
        python = work / "venv" / "bin" / "python"
        pip = (python, "-m", "pip", "--disable-pip-version-check")
        run(*pip, "install", wheel)
        run(*pip, "check")
        site = pathlib.Path(
            run(python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))").strip()
        )
        info = run(python, "-m", "faiss_ext", "info")
        script = run(work / "venv" / "bin" / "faiss-ext", "info")
        check(script == info, f"faiss-ext info says\n{script}")
        check(re.search(r"^native part +in use$", info, re.M), f"info says\n{info}")
        check_search(python, site, simulator)

        # Another distribution of Faiss beside it is named, and so is the fix.
        run(*pip, "install", "--no-deps", "faiss-cpu")
        said = run(python, "-c", "import faiss_ext; assert not faiss_ext.has_native", may_fail=True)
        check("pip uninstall faiss-cpu" in said, f"beside faiss-cpu it says\n{said}")
        run(*pip, "uninstall", "--yes", "faiss-cpu")
        run(*pip, "install", "--force-reinstall", "--no-deps", wheel)
        check_search(python, site, simulator)


if __name__ == "__main__":
    main()
