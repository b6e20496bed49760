"""`python -m faiss_ext run`: unmodified programs with our classes in place."""

import os
import pathlib
import subprocess
import sys

PROGRAM = """
import sys
import numpy as np
import faiss
from faiss import GpuIndexFlatL2
import faiss.contrib.evaluation

assert __name__ == "__main__"
base = np.random.default_rng(0).integers(-7, 8, (300, 16)).astype("float32")
index = faiss.index_cpu_to_gpu(
    faiss.StandardGpuResources(), 0, faiss.IndexFlatL2(16))
index.add(base)
other = GpuIndexFlatL2(faiss.StandardGpuResources(), 16)
other.add(base)
D, I = index.search(base, 1)
assert (D == 0).all()
res = faiss.StandardGpuResources()
assert (faiss.knn_gpu(res, base, base, 1)[0] == 0).all()
assert faiss.pairwise_distance_gpu(res, base, base).shape == (300, 300)
shards = faiss.index_cpu_to_gpus_list(faiss.IndexFlatL2(16), gpus=[0, 0])
shards.add(base)
assert shards.search(base, 1)[1].shape == (300, 1)
print(sys.argv[1:], type(index).__module__, type(other).__module__,
      isinstance(index, faiss.GpuIndexFlat), len(faiss.downcast_index(index).search(base, 2)))
sys.exit(7)
"""


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "faiss_ext", "run", *arguments],
        capture_output=True, text=True, cwd=cwd,
    )


def test_a_script_gets_our_classes_its_arguments_and_its_exit_status(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    done = run("program.py", "--k", "3", "-x", cwd=tmp_path)
    assert done.returncode == 7, done.stderr
    assert done.stdout.split("\n")[0] == (
        "['--k', '3', '-x'] faiss_ext faiss_ext "
        "True 2"
    )


def test_a_module_runs_too(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    done = run("-m", "program", "a", cwd=tmp_path)
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith("['a'] faiss_ext")


def test_a_scripts_own_errors_keep_their_traceback(tmp_path):
    (tmp_path / "program.py").write_text("open('nothing here')\n")
    done = run("program.py", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "nothing here" in done.stderr


def test_a_missing_script_is_one_line(tmp_path):
    done = run("nothing.py", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: nothing.py: no such file\n"


def test_scripts_beside_the_script_are_found(tmp_path):
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "helper.py").write_text("value = 5\n")
    (folder / "program.py").write_text("import helper, faiss\nprint(helper.value)\n")
    done = run("sub/program.py", cwd=tmp_path)
    assert done.stdout == "5\n", done.stderr


WITH_TORCH = """
import faiss
import numpy as np
import faiss.contrib.torch_utils
import faiss_ext
from faiss_ext.contrib import torch_interop, torch_utils

assert torch_utils is faiss.contrib.torch_utils
# Tensors of its own are what torch_utils adds to every class.
assert faiss.GpuIndexFlatL2.search.__module__ == "faiss.contrib.torch_utils"
index = faiss.GpuIndexFlatL2(torch_interop.gpu_resources(), 16)
base = np.random.default_rng(0).integers(-7, 8, (300, 16)).astype("float32")
index.add(base)
print((index.search(base, 1)[0] == 0).all(), type(index).__module__)
"""


def test_torch_utils_of_faiss_works_beside_our_torch_interop(tmp_path):
    here = pathlib.Path(__file__).parent
    (tmp_path / "program.py").write_text(WITH_TORCH)
    path = [str(here / "stand_ins"), str(here), os.environ["PYTHONPATH"]]
    done = subprocess.run(
        [sys.executable, "-m", "faiss_ext", "run", "program.py"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True, text=True, cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True faiss_ext\n"
