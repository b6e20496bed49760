"""The native part as it is installed into the Python package."""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = pathlib.Path(os.environ["FAISS_EXT_BUILD_DIR"])

SEARCH = """
import sys, numpy, faiss_ext as faiss
assert faiss.has_native, faiss.native_problem
index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 2)
index.add(numpy.eye(2, dtype="float32"))
assert index.search(numpy.eye(2, dtype="float32"), 1)[1].tolist() == [[0], [1]]
maps = open("/proc/self/maps").read().splitlines()
ours = {line.split()[-1] for line in maps if "faiss_ext" in line.rpartition("/")[2]}
print(*sorted(ours))
"""


def test_it_needs_nothing_of_the_build_folder(tmp_path):
    site = tmp_path / "site"
    # What pyproject.toml asks for.
    subprocess.run(
        ["cmake", "--install", BUILD, "--component", "python", "--prefix", site],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert {p.name for p in site.iterdir()} == {"faiss_ext"}
    package = site / "faiss_ext"
    shutil.copytree(ROOT / "faiss_ext", package, dirs_exist_ok=True)
    shutil.copytree(ROOT / "contrib", package / "contrib")
    shutil.copy(ROOT / "VERSION", site)
    done = subprocess.run(
        [sys.executable, "-c", SEARCH],
        env={**os.environ, "PYTHONPATH": f"{site}:{os.environ['PYTHONPATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    loaded = [pathlib.Path(path) for path in done.stdout.split()]
    assert len(loaded) == 2, loaded
    assert all(path.parent == package / "_native" for path in loaded), loaded
