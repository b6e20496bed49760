"""`faiss.contrib.torch_utils` beside us, in every order of imports.

In processes of their own, because it changes Faiss' classes. With PyTorch where
it is installed (its tensors on the host), and always with the stand-in of
`stand_ins/`, which has tensors on the simulated GPU too.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent

ON_HOST = """
values = np.random.default_rng(0).integers(-7, 8, (300, 16)).astype("float32")
x = torch.from_numpy(values)


def numpy_of(array):
    return array if isinstance(array, np.ndarray) else array.numpy()


def check(index, tensors_come_back):
    index.train(x)
    index.add(x)
    D, I = index.search(x, 1)
    assert (type(I) is torch.Tensor) == tensors_come_back, type(I)
    assert (numpy_of(D) == 0).all()
    D, I = index.search(values, 1)
    assert type(I) is np.ndarray and (D == 0).all()
    labels = index.assign(x, 1)
    assert (numpy_of(labels) == I).all()
    assert (numpy_of(index.reconstruct_n(0, 300)) == values).all()
    assert (numpy_of(index.reconstruct(5)) == values[5]).all()
    numpy_of(index.range_search(x, 1.0)[0])


for made in (faiss.IndexFlatL2(16), faiss.index_factory(16, "IVF2,Flat")):
    if hasattr(made, "make_direct_map"):
        made.train(values)
        made.make_direct_map()
    check(made, True)

# (Of later versions of Faiss; `made` has inverted lists.)
if hasattr(made, "search_preassigned_c"):
    for queries in (x, values):
        near, lists = made.quantizer.search(queries, 1)
        D, I = made.search_preassigned(queries, 1, lists, near)
        assert type(I) is type(queries) and (numpy_of(D) == 0).all()
"""

ON_GPU = """
resources = faiss.StandardGpuResources()
for made in (
    faiss.GpuIndexFlatL2(resources, 16),
    faiss.index_cpu_to_gpu(resources, 0, faiss.IndexFlatL2(16)),
):
    assert type(made).__module__ == "faiss_ext"
    made.train(values)
    made.add(values)
    D, I = made.search(values, 1)
    assert type(I) is np.ndarray and (D == 0).all() and I.shape == (300, 1)
    D, I = made.search(x, 1)
    assert (numpy_of(D) == 0).all()
    assert (numpy_of(made.reconstruct(3)) == values[3]).all() if not {patched} else True
D, I = faiss.knn_gpu(resources, values, values, 1)
assert type(I) is np.ndarray and (D == 0).all()
"""

TENSORS_ON_GPU = """
gpu = x.cuda()
for made in (
    faiss.GpuIndexFlatL2(resources, 16),
    faiss.index_cpu_to_gpu(resources, 0, faiss.IndexFlatL2(16)),
):
    made.train(gpu)
    made.add(gpu)
    D, I = made.search(gpu, 1)
    assert type(D) is type(I) is torch.Tensor and I.is_cuda
    assert (D.cpu().numpy() == 0).all()
    again = made.search(gpu, 1, D=D, I=I)
    assert again[0] is D and again[1] is I
    labels = made.assign(gpu, 1)
    assert (labels.cpu().numpy() == I.cpu().numpy()).all()
    one = torch.empty(16, device="cuda")
    made.reconstruct(3, one)
    assert (one.cpu().numpy() == values[3]).all()
    D, I = made.search(values, 1)
    assert type(I) is np.ndarray and (D == 0).all()
    D, I, R = made.search_and_reconstruct(gpu, 1)
    assert R.shape == (300, 1, 16)
D, I = faiss.knn_gpu(resources, gpu, gpu, 1)
assert type(I) is torch.Tensor and (D.cpu().numpy() == 0).all()
for refused in (
    lambda: faiss.IndexFlatL2(16).add(gpu), lambda: faiss.knn(gpu, gpu, 1),
):
    try:
        refused()
    except (AssertionError, TypeError):
        pass
    else:
        raise SystemExit("a GPU tensor on a CPU index")
"""

HEADS = {
    # How a program says it: its imports, and whether torch_utils replaces the
    # methods of our GPU classes.
    "torch_utils first": (
        "import faiss.contrib.torch_utils\nimport faiss_ext as faiss\n", False),
    "torch_utils after": (
        "import faiss_ext as faiss\nfrom faiss.contrib import torch_utils\n", False),
    "run": ("import faiss\nimport faiss.contrib.torch_utils\n", True),
}


def program(head, *parts):
    imports, patched = HEADS[head]
    return (
        "import numpy as np\nimport torch\n" + imports
        + "".join(parts).replace("{patched}", str(patched))
        + "\nprint('done')\n"
    )


def run(tmp_path, head, text, *paths):
    (tmp_path / "program.py").write_text(text)
    start = ["-m", "faiss_ext", "run"] if head == "run" else []
    paths = [*map(str, paths), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *start, "program.py"],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths),
             "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("head", HEADS)
def test_with_a_stand_in_of_torch(tmp_path, head):
    run(tmp_path, head, program(head, ON_HOST, ON_GPU, TENSORS_ON_GPU),
        HERE / "stand_ins", HERE)


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("head", HEADS)
def test_with_torch_itself(tmp_path, head):
    run(tmp_path, head, program(head, ON_HOST, ON_GPU))
