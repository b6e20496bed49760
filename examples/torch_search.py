#!/usr/bin/env python3
"""Exact nearest neighbours of PyTorch tensors, in PyTorch's own memory.

    python torch_search.py [VECTORS QUERIES DIMENSIONS]

The tensors stay on the GPU, and so do the results. Faiss works in the current
stream, and its storage and scratch come from PyTorch's caching allocator: where
Faiss' own resources reserve up to 1.5 GiB, these hold what is in use.
"""

import sys
import time

import faiss_ext as faiss
import torch
from faiss_ext.contrib import torch_interop

nb, nq, d = map(int, sys.argv[1:] or (1_000_000, 500, 512))
k, searches = 1, 20

vectors = torch.rand(nb, d, device="cuda")
queries = vectors[:nq].requires_grad_()  # as they come out of a network

resources = torch_interop.gpu_resources()
stream = torch.cuda.current_stream()
resources.setDefaultStream(stream.device.index, stream.cuda_stream)
index = faiss.GpuIndexFlatL2(resources, d)
index.add(vectors)
torch_interop.search(index, queries, k)  # the first one makes what all others use
index.reset_transfer_stats()

torch.cuda.synchronize()
begin = time.perf_counter()
for _ in range(searches):
    distances, labels = torch_interop.search(index, queries, k)
torch.cuda.synchronize()
seconds = time.perf_counter() - begin

stats = index.transfer_stats()
moved = stats["bytes_to_device"] + stats["bytes_to_host"]
right = (labels.cpu().numpy()[:, 0] == range(nq)).mean()
print(f"{nq} queries among {nb} vectors of {d} dimensions, k = {k}")
print(f"{1e3 * seconds / searches:.3f} ms per search")
print(f"{moved // searches} bytes over the link per search")
print(f"{right:.1%} of the queries, themselves vectors, found themselves")
print(f"of PyTorch's memory Faiss holds {resources.getMemoryInfo()}")
