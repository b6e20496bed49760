"""Mistakes that type checkers must see, whatever Faiss is beside the package:
an error in each line that says so, and in no other. Read by test_types.py."""

import faiss_ext as faiss
import numpy as np

x = np.zeros((2, 8), np.float32)
resources = faiss.StandardGpuResources()
index = faiss.GpuIndexFlatL2(resources, 8)

index.add(x, cast=1.5)  # error
index.search(x)  # error
index.search(x, "3")  # error
index.search("queries", 3)  # error
index.search(x, 3, True)  # error
distances: list[float] = index.search(x, 3)[0]  # error
index.reconstruct(0.5)  # error
index.reconstruct(0).nothing  # error
faiss.knn_gpu(resources, x, x)  # error
faiss.knn_gpu(resources, x, x, 3, cast="yes")  # error
faiss.knn_gpu(resources, x, x, 3, metric="cosin")  # error
faiss.normalize_L2(3)  # error
faiss.normalize_L2()  # error
faiss.pairwise_distance_gpu(resources, x, 3)  # error
faiss.StagedConfig().pinnedBytez  # error
faiss.StagedConfig().pinnedBytes = 0.5  # error
faiss.StagedConfig().search = 1  # error
faiss.PooledGpuResources(0, 0)  # error
faiss.pinned_empty((2, 3)).nothing  # error
faiss.pinned_pool_stats()["bound"].nothing  # error
faiss.InvalidArray().nothing  # error
has: str = faiss.has_native  # error
faiss.get_num_gpus(1)  # error
