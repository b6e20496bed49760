"""Forked processes: what the parent and its GPU do is not seen in the child, nor
the other way round; the child ends like any other, and is told what it cannot
do."""

from __future__ import annotations

import pytest
from programs_at_end import run_program

#: The child runs `child()`, which returns what is wrong there, while the parent
#: goes on searching; then it ends as `ending` says.
FORK = """
import gc
import os
import signal
import threading
import numpy as np
import faiss_ext as faiss

x = np.random.default_rng(1).random((300, 8), dtype="f4")
cpu = faiss.IndexFlatL2(8)
cpu.add(x)
resources = faiss.StandardGpuResources()
index = faiss.GpuIndexFlatL2(resources, 8)
index.add(x)
stock = faiss.index_cpu_to_gpu_multiple_py(
    [resources, faiss.StandardGpuResources()],
    faiss.IndexIDMap(faiss.IndexFlatL2(8)), gpus=[0, 0])
unused = faiss.StandardGpuResources()
faiss.GpuIndexFlatL2(unused, 8).add(x)
_, labels = index.search(x[:7], 4)
_, many = index.search(x, 40)
_, gone = index.search(x, 40)
pinned = faiss.pinned_empty((100, 8))
pinned[:] = 3
expected, all_expected = labels.copy(), many.copy()
if threads:
    def searching():
        while True:
            index.search(x[:20], 3)
    for _ in range(3):
        threading.Thread(target=searching, daemon=True).start()


def refused(call):
    try:
        call()
    except RuntimeError as error:
        return "spawn" in str(error)
    return False


def child():
    os.read(searched[0], 1)
    wrong = []
    if not np.array_equal(labels, expected) or not np.array_equal(
            many, all_expected) or not np.array_equal(gone, all_expected):
        wrong.append("results have changed")
    labels[:], many[:], pinned[:] = -5, -5, 7
    if cpu.search(x[:3], 1)[1].ravel().tolist() != [0, 1, 2]:
        wrong.append("the CPU index")
    for name, call in {
        "search": lambda: index.search(x[:5], 2),
        "many": lambda: index.search(x, 200),
        "assign": lambda: index.assign(x, 2),
        "add": lambda: index.add(x),
        "reset": lambda: index.reset(),
        "reconstruct": lambda: index.reconstruct(3),
        "replicas": lambda: stock.search(x[:5], 2),
        "pinned_empty": lambda: faiss.pinned_empty(5),
        "new": lambda: faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 8),
        "clone": lambda: faiss.index_cpu_to_gpu(resources, 0, cpu),
        "to the CPU": lambda: faiss.index_gpu_to_cpu(index),
    }.items():
        if not refused(call):
            wrong.append(name)
    if faiss.pinned_pool_stats()["pinned_bytes"]:
        wrong.append("pinned_pool_stats")
    return wrong


searched, said = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    signal.alarm(30)
    os.write(said[1], " ".join(["child:"] + child()).encode())
    if ending == "destroys":
        del index, stock, resources, unused, labels, many, gone, pinned, cpu
        gc.collect()
    if ending == "_exit":
        os._exit(0)
    sys.exit(0)
os.close(said[1])
if not threads:
    # Blocks of the pool are lent again.
    del gone
    for _ in range(4):
        _, again = index.search(x[::-1].copy(), 40)
os.write(searched[1], b"x")
assert os.read(said[0], 1000) == b"child:", "see the child"
assert os.waitpid(pid, 0)[1] == 0
np.testing.assert_array_equal(labels, expected)
np.testing.assert_array_equal(many, all_expected)
assert (pinned == 3).all()
np.testing.assert_array_equal(index.search(x[:7], 4)[1], expected)
print("done", flush=True)
"""


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("ending", ["exits", "destroys", "_exit"])
def test_a_child_and_its_parent_do_not_see_each_other(
    faiss_ext, monkeypatch, threads, ending
):
    # The threads of OpenMP do not survive a fork either.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # On the simulated runtime: no call of CUDA in the child.
    monkeypatch.setenv("CUDA_SIM_STRICT", "1")
    run_program(FORK, threads=threads, ending=ending)


BEFORE = """
import os
import numpy as np
import faiss_ext as faiss

pid = os.fork()
x = np.random.default_rng(1).random((300, 8), dtype="f4")
index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 8)
index.add(x)
assert (index.search(x, 2)[1][:, 0] == np.arange(300)).all()
assert faiss.pinned_pool_stats()["pinned_bytes"] > 0
if pid:
    assert os.waitpid(pid, 0)[1] == 0
    print("done", flush=True)
"""


def test_a_process_forked_before_cuda_was_used_uses_it(faiss_ext):
    run_program(BEFORE)


WORKERS = """
import multiprocessing
import numpy as np
import faiss_ext as faiss

x = np.random.default_rng(1).random((300, 8), dtype="f4")
index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 8)
index.add(x)
_, labels = index.search(x, 3)


def work(i):
    labels[i] = -1
    return int(labels[i + 1, 0])


with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(work, range(0, 20, 2)) == list(range(1, 20, 2))
assert (index.search(x, 3)[1] == labels).all()
print("done", flush=True)
"""


def test_workers_of_multiprocessing(faiss_ext, monkeypatch):
    monkeypatch.setenv("CUDA_SIM_STRICT", "1")
    run_program(WORKERS)
