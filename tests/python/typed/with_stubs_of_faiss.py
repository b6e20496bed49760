"""What type checkers must make of a program where Faiss brings stubs. Read by
test_types.py, and never run."""

import faiss as stock
import faiss_ext as faiss
import numpy as np
import numpy.typing as npt
from typing_extensions import assert_type


def classes_of_faiss_are_the_same() -> None:
    cpu = faiss.IndexFlatL2(8)
    assert_type(cpu, stock.IndexFlatL2)
    assert_type(faiss.METRIC_L2, int)
    assert_type(faiss.GpuClonerOptions(), stock.GpuClonerOptions)
    assert_type(faiss.clone_index(cpu), stock.Index)


def ours_go_where_theirs_go(
    resources: faiss.StandardGpuResources, config: stock.GpuIndexFlatConfig
) -> None:
    one: stock.GpuIndexFlat = faiss.GpuIndexFlat(resources, 8, 1, config)
    two: stock.GpuIndexFlatL2 = faiss.GpuIndexFlatL2(resources, 8, config)
    ip: stock.GpuIndexFlatIP = faiss.GpuIndexFlatIP(resources, 8)
    gpu: stock.GpuIndex = faiss.GpuIndexFlatL2(resources, stock.IndexFlatL2(8))
    any_index: stock.Index = gpu
    theirs: stock.StandardGpuResources = resources
    stock.GpuIndexFlatL2(resources, 8)
    ivf: stock.GpuIndexIVF = faiss.GpuIndexIVFFlat(resources, 8, 4)
    pq: stock.GpuIndexIVFPQ = faiss.GpuIndexIVFPQ(resources, 8, 4, 2, 8)
    pq.setPrecomputedCodes(True)


def cloners(
    index: stock.Index, flat: stock.IndexFlatL2, binary: stock.IndexBinaryFlat
) -> None:
    resources = faiss.StandardGpuResources()
    made = faiss.index_cpu_to_gpu(resources, 0, flat)
    assert_type(made, faiss.GpuIndexFlat)
    assert_type(faiss.index_cpu_to_gpu(stock.StandardGpuResources(), 0, index), faiss.GpuIndex)
    assert_type(faiss.index_cpu_to_gpu(resources, 0, binary), stock.IndexBinary)
    assert_type(faiss.index_cpu_to_all_gpus(index, ngpu=1), faiss.GpuIndex)
    assert_type(faiss.index_cpu_to_all_gpus(binary), stock.IndexBinary)
    options = faiss.GpuMultipleClonerOptions()
    options.shard = True
    assert_type(
        faiss.index_cpu_to_gpus_list(index, options, gpus=[0, 0]), faiss.GpuIndex
    )
    assert_type(
        faiss.index_cpu_to_gpu_multiple_py([resources], index, options, [0]),
        faiss.GpuIndex,
    )
    back: stock.Index = faiss.index_gpu_to_cpu(made)
    made.copyFrom(flat)


def searches(x: npt.NDArray[np.float32], index: stock.Index) -> None:
    gpu = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    assert_type(
        gpu.search(x, 3), tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
    )
    gpu.search([[0.5] * 8], 3, cast=True)
    gpu.setMinPagingSize(0)
