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
from measure.floors import COMPUTE, floors
from measure.gpu_arrays import families, on_host
from measure.searches import Searches, database, random_vectors, resources
from measure.timing import Contender

NAME = "cupy_script"


def run(session):
    """The script with ours, with stock Faiss through the host, and both with
    the search alone."""
    nb, d, n, k = session.shapes.cupy_script
    # CuPy's, if it is there.
    arrays = families(session.native)[0]
    case = {"nb": nb, "d": d, "n": n, "k": k, "arrays": arrays.name}
    base_bytes = 4 * nb * d
    obstacle = session.obstacle(
        host_bytes=4 * base_bytes, device_bytes=5 * base_bytes
    )
    if obstacle:
        session.skip(NAME, case, obstacle)
        return
    base, queries = database(nb, d), random_vectors(n, d, 22)
    searches = Searches(session, base, queries, k)
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
        found = stock.search(on_host(gpu_queries), k)
        out[:] = [arrays.of(array) for array in found]
        session.native.synchronize()

    def script_stock():
        stock.reset()
        stock.add(on_host(gpu_base))
        search_stock()

    def check():
        return searches.oracle.check(*(np.asarray(on_host(array)) for array in out))

    search = floors(
        session.ceilings, n=n, k=k, nb=nb, d=d,
        queries_on_host=False, results_on_host=False,
    )
    rate = session.ceilings["device_memory_bytes_s"]
    # `add` reads and writes each vector once, within GPU memory.
    script = {"add and search": 2 * base_bytes / rate + search["compute"]
              if rate and search["compute"] else None}
    on_gpu = tuple(memory.OnGpu(session.native, (n, k), dtype)
                   for dtype in ("float32", "int64"))
    session.measure(
        NAME,
        case,
        [
            Contender("stock script", script_stock, None, check),
            Contender("ours script", script_ours, None, check),
            Contender("stock search", search_stock, None, check),
            Contender("ours search", search_ours, None, check,
                      ours.reset_transfer_stats, ours.transfer_stats),
            Contender("ours search again", search_ours, None, check),
            searches.given(
                COMPUTE, "C++ stock", memory.OnGpu.of(session.native, queries),
                lambda: on_gpu, wait=True),
        ],
        lambda name: script if "script" in name else search,
    )
