#!/usr/bin/env python3
"""Exact nearest neighbours of CuPy arrays: nothing but the kernels.

    python cupy_search.py [VECTORS QUERIES DIMENSIONS]

The script of https://github.com/facebookresearch/faiss/issues/4118, as its
author wished to write it. The arrays stay on the GPU, and so do the results.
"""

import sys
import time

import cupy as cp
import faiss_ext as faiss

nb, nq, d = map(int, sys.argv[1:] or (1_000_000, 500, 512))
k, searches = 1, 20

vectors = cp.random.random((nb, d), dtype=cp.float32)
queries = vectors[:nq]

index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), d)
index.add(vectors)
index.search(queries, k)  # the first one makes what all others use
index.reset_transfer_stats()

cp.cuda.Device().synchronize()
begin = time.perf_counter()
for _ in range(searches):
    distances, labels = index.search(queries, k)
cp.cuda.Device().synchronize()
seconds = time.perf_counter() - begin

stats = index.transfer_stats()
moved = stats["bytes_to_device"] + stats["bytes_to_host"]
right = (labels.get()[:, 0] == range(nq)).mean()
print(f"{nq} queries among {nb} vectors of {d} dimensions, k = {k}")
print(f"{1e3 * seconds / searches:.3f} ms per search")
print(f"{moved // searches} bytes over the link per search")
print(f"{right:.1%} of the queries, themselves vectors, found themselves")
