#!/usr/bin/env python3
"""Exact nearest neighbours of JAX arrays: nothing but the kernels.

    python jax_search.py [VECTORS QUERIES DIMENSIONS]

The arrays stay on the GPU. JAX's cannot be written by others, so the results
come as arrays of faiss_ext on the GPU, which JAX takes as they are.
"""

import sys
import time

import faiss_ext as faiss
import jax
import jax.numpy as jnp
import numpy as np

nb, nq, d = map(int, sys.argv[1:] or (1_000_000, 500, 512))
k, searches = 1, 20

vectors = jax.random.uniform(jax.random.key(0), (nb, d))
queries = vectors[:nq]

index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), d)
index.add(vectors)


def nearest(queries):
    _, labels = map(jnp.from_dlpack, index.search(queries, k))
    return labels[:, 0]


jax.block_until_ready(nearest(queries))  # the first one makes what all others use
index.reset_transfer_stats()

begin = time.perf_counter()
for _ in range(searches):
    labels = nearest(queries)
jax.block_until_ready(labels)
seconds = time.perf_counter() - begin

stats = index.transfer_stats()
moved = stats["bytes_to_device"] + stats["bytes_to_host"]
right = (np.asarray(labels) == range(nq)).mean()
print(f"{nq} queries among {nb} vectors of {d} dimensions, k = {k}")
print(f"{1e3 * seconds / searches:.3f} ms per search")
print(f"{moved // searches} bytes over the link per search")
print(f"{right:.1%} of the queries, themselves vectors, found themselves")
