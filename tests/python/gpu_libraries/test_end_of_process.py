"""A process ends while daemon threads are in the midst of calls: status 0, and
not a word."""

from __future__ import annotations

import pytest
from programs_at_end import ATTEMPTS, STAND_INS, run_program

#: Each thread is inside `call` when the interpreter ends: the main thread ends
#: once every one has begun its second round.
DAEMONS = """
import threading
import numpy as np
import faiss_ext as faiss

sys.setswitchinterval(1e-5)
x = np.random.default_rng(1).random((300, 8), dtype="f4")
resources = faiss.StandardGpuResources()
index = faiss.GpuIndexFlatL2(resources, 8)
index.add(x)
# Of the same resources, destroyed by the interpreter's end.
other = faiss.GpuIndexFlatIP(resources, 8)
other.add(x)
begun = threading.Semaphore(0)


def search():
    index.search(x[:20], 3)


def search_into():
    index.search(x, 3, D=np.empty((300, 3), "f4"), I=np.empty((300, 3), "i8"))


def add():
    mine = faiss.GpuIndexFlatL2(resources, 8)
    mine.add(x)


def clone():
    faiss.index_cpu_to_gpu(resources, 0, faiss.IndexFlatL2(8))


def pinned():
    faiss.pinned_empty((1000, 8))


def rounds():
    globals()[call]()
    begun.release()
    while True:
        globals()[call]()


for _ in range(4):
    threading.Thread(target=rounds, daemon=True).start()
for _ in range(4):
    begun.acquire()
print("done", flush=True)
"""


@pytest.mark.parametrize("attempt", range(ATTEMPTS))
@pytest.mark.parametrize(
    "call", ["search", "search_into", "add", "clone", "pinned"]
)
def test_daemon_threads_in_calls(faiss_ext, call, attempt):
    run_program(DAEMONS, call=call)


#: With arrays of a library on the GPU: Python code is called from C++.
ON_GPU = """
import threading
import numpy as np
import libraries
import faiss_ext as faiss
from small_search import DIMS, integers

sys.setswitchinterval(1e-5)
library = libraries.load(name)
index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), DIMS)
index.add(integers(100, 1))
queries = library.to_gpu(integers(20, 2), 0)
outputs = {}
if given:
    outputs = {"D": library.to_gpu(np.zeros((20, 3), "float32"), 0),
               "I": library.to_gpu(np.zeros((20, 3), "int64"), 0)}
begun = threading.Semaphore(0)


def rounds():
    index.search(queries, 3, **outputs)
    begun.release()
    while True:
        if call == "search":
            index.search(queries, 3, **outputs)
        else:
            faiss.knn_gpu(
                faiss.StandardGpuResources(), queries, queries, 3, **outputs)


for _ in range(4):
    threading.Thread(target=rounds, daemon=True).start()
for _ in range(4):
    begun.acquire()
print("done", flush=True)
"""


@pytest.mark.parametrize("attempt", range(ATTEMPTS))
@pytest.mark.parametrize("call", ["search", "knn_gpu"])
def test_daemon_threads_with_arrays_on_the_gpu(library, call, attempt):
    name = type(library).__name__.lower()
    if not STAND_INS and (name == "jax" or (name, call) == ("torch", "knn_gpu")):
        pytest.skip(
            "the library's own __dlpack__ ends the process where its thread is "
            "ended in it, without this package too (PyTorch 2.11, JAX 0.11)")
    # PyTorch's new_empty does the same, and Numba's arrays that are made while
    # the process ends are freed with a word. PyTorch's that are given are lent
    # by its table of functions.
    run_program(
        ON_GPU, name=name, call=call, given=name in ("torch", "numba"))


ALIVE = """
import json
import faiss_ext as faiss

resources = [faiss.StandardGpuResources() for _ in range(2)]
flat = faiss.IndexFlatL2(8)
rotation = faiss.RandomRotationMatrix(8, 8)
rotation.init(1)
shards = faiss.GpuMultipleClonerOptions()
shards.shard = True
kept = {
    "flat": lambda: faiss.index_cpu_to_gpu(resources[0], 0, flat),
    "map": lambda: faiss.index_cpu_to_gpu(
        resources[0], 0, faiss.IndexIDMap(flat)),
    "transform": lambda: faiss.index_cpu_to_gpu(
        resources[0], 0, faiss.IndexPreTransform(rotation, flat)),
    "replicas": lambda: faiss.index_cpu_to_gpu_multiple_py(
        resources, flat, gpus=[0, 0]),
    "shards": lambda: faiss.index_cpu_to_gpu_multiple_py(
        resources, flat, shards, gpus=[0, 0]),
}[kind]()
if where == "of a module":
    sys.kept = kept
print("done", flush=True)
if where == "of main, sys.exit":
    sys.exit()
"""


@pytest.mark.parametrize(
    "where", ["of main", "of main, sys.exit", "of a module"]
)
@pytest.mark.parametrize(
    "kind", ["flat", "map", "transform", "replicas", "shards"]
)
def test_an_index_alive_at_the_end_says_nothing(faiss_ext, kind, where):
    run_program(ALIVE, kind=kind, where=where)


def test_all_exit_functions_of_python_may_be_taken(faiss_ext):
    run_program("""
import ctypes
function = ctypes.CDLL(None).getpid
while ctypes.pythonapi.Py_AtExit(function) == 0:
    pass
import numpy as np
import faiss_ext as faiss
index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 8)
index.add(np.zeros((3, 8), "f4"))
index.search(np.zeros((3, 8), "f4"), 1)
print("done", flush=True)
""")
