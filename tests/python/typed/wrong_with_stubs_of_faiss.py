"""Mistakes that type checkers must see where Faiss brings stubs: an error in
each line that says so, and in no other. Read by test_types.py."""

import faiss as stock
import faiss_ext as faiss

resources = faiss.StandardGpuResources()
flat = stock.IndexFlatL2(8)

faiss.IndexFlatL2("8")  # error
faiss.GpuIndexFlatL2(0, 8)  # error
faiss.GpuIndexFlatL2(resources, flat, flat)  # error
faiss.GpuIndexFlatCosine(resources, "8")  # error
faiss.GpuIndexFlatL2(resources, 8).serch  # error
faiss.index_cpu_to_gpu(resources, flat)  # error
faiss.index_cpu_to_gpu(resources, 0, 8)  # error
faiss.index_cpu_to_gpu(resources, 0, flat, options=0)  # error
faiss.index_cpu_to_all_gpus(flat, ngpus=1)  # error
resources.setTempMemory("1 GiB")  # error
resources.setTempMemori(0)  # error
