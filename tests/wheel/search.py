"""A search on the simulated CUDA runtime, by the libraries under one folder.

    search.py SITE_PACKAGES

Run by check_wheel.py in a process of its own.
"""

import ctypes
import pathlib
import sys

import faiss
import numpy as np

import faiss_ext

site = pathlib.Path(sys.argv[1])
assert faiss_ext.has_native, faiss_ext.native_problem
assert issubclass(faiss_ext.GpuIndexFlatL2, faiss.GpuIndexFlatL2)

vectors = np.random.default_rng(0).integers(-7, 8, (1000, 32)).astype("float32")
expected = faiss.IndexFlatL2(32)
expected.add(vectors)
index = faiss_ext.index_cpu_to_gpu(faiss_ext.StandardGpuResources(), 0, expected)
assert isinstance(index, faiss_ext.GpuIndexFlat)
for found, right in zip(index.search(vectors[:9], 5), expected.search(vectors[:9], 5)):
    np.testing.assert_array_equal(found, right)
assert index.transfer_stats()["host_waits"] == 1

simulator = ctypes.CDLL(None)  # preloaded
assert simulator.cuda_sim_check() == 0

maps = pathlib.Path("/proc/self/maps").read_text()
libraries = {line.split()[-1] for line in maps.splitlines() if ".so" in line}
for name in ("faiss", "gomp", "openblas", "gfortran"):
    loaded = [
        path
        for path in libraries
        if name in pathlib.Path(path).name and "cuda_sim" not in path
    ]
    assert loaded, f"no {name} is loaded"
    strangers = [path for path in loaded if site not in pathlib.Path(path).parents]
    assert not strangers, f"not the wheel's: {strangers}"
