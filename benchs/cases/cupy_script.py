"""The script of Faiss' issue #4118: CuPy arrays, d = 512, a million vectors, 500
queries, k = 1; `add` and `search` as they stand there.

Stock Faiss takes no CuPy arrays; what its user does is `cupy.asnumpy` and back.
Where CuPy is not installed, an array with the CUDA Array Interface stands for
its, and the record says so.
"""

from __future__ import annotations

import faiss
import faiss_ext
import numpy as np

from measure import memory
from measure.floors import floors
from measure.oracle import Oracle
from measure.searches import random_vectors, resources
from measure.timing import Contender

NAME = "cupy_script"


def run(session):
    """The script with ours, with stock Faiss through the host, and both with
    the search alone."""
    nb, d, n, k = session.shapes.cupy_script
    arrays = _Arrays(session.native)
    case = {"nb": nb, "d": d, "n": n, "k": k, "arrays": arrays.name}
    base_bytes = 4 * nb * d
    obstacle = session.obstacle(
        host_bytes=4 * base_bytes, device_bytes=5 * base_bytes
    )
    if obstacle:
        session.skip(NAME, case, obstacle)
        return
    base, queries = random_vectors(nb, d, 21), random_vectors(n, d, 22)
    oracle = Oracle(base, queries, [0, n // 2, n - 1], k)
    gpu_base, gpu_queries = arrays.of(base), arrays.of(queries)
    out = []
    ours = faiss_ext.GpuIndexFlatL2(resources(), d)
    stock = faiss.GpuIndexFlatL2(resources(), d)

    def search_ours():
        out[:] = ours.search(gpu_queries, k)
        session.native.synchronize()

    def script_ours():
        ours.reset()
        ours.add(gpu_base)
        search_ours()

    def search_stock():
        found = stock.search(arrays.host(gpu_queries), k)
        out[:] = [arrays.of(array) for array in found]
        session.native.synchronize()

    def script_stock():
        stock.reset()
        stock.add(arrays.host(gpu_base))
        search_stock()

    def counts():
        ours.reset_transfer_stats()
        search_ours()
        return ours.transfer_stats()

    def check():
        return oracle.check(*(
            np.asarray(arrays.host(array)) for array in out
        ))

    bounds = floors(
        session.ceilings, n=n, k=k, nb=nb, d=d,
        queries_on_host=False, results_on_host=False,
    )
    session.measure(
        NAME,
        case,
        [
            Contender("stock script", script_stock, None, check),
            Contender("ours script", script_ours, None, check),
            Contender("stock search", search_stock, None, check),
            Contender("ours search", search_ours, None, check, counts),
            Contender("ours search again", search_ours, None, check),
        ],
        lambda name: bounds if "search" in name else {},
    )


class _Arrays:
    """CuPy's arrays, or ones that offer the same."""

    def __init__(self, native):
        self._native = native
        try:
            import cupy

            cupy.zeros(1)
        except Exception:
            cupy = None
        self._cupy = cupy
        self.name = "CuPy" if cupy else "stand-in for CuPy"

    def of(self, values):
        if self._cupy:
            return self._cupy.asarray(values)
        return memory.OnGpu.of(self._native, values)

    def host(self, array):
        for name in ("get", "copy_to_host"):
            if hasattr(array, name):
                return getattr(array, name)()
        return array
