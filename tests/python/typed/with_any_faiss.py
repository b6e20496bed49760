"""What type checkers must make of a program, whatever Faiss is beside the
package. Read by test_types.py, and never run."""

import pathlib
from typing import Any

import faiss_ext as faiss
import numpy as np
import numpy.typing as npt
from typing_extensions import assert_type

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class Tensor:
    """As PyTorch's: it makes its own kind, and offers DLPack."""

    shape: tuple[int, ...]

    def new_empty(self, size: Any, *, dtype: Any = None) -> "Tensor":
        raise NotImplementedError

    def __dlpack__(self, stream: int | None = None) -> object:
        raise NotImplementedError


class Parameter(Tensor):
    """What is derived from it gets plain ones."""


class OfCuPy:
    """It offers an interface; what its library makes, no type tells."""

    shape: tuple[int, ...]
    __cuda_array_interface__: dict[str, Any]


def searches(
    x: Floats, tensor: Tensor, parameter: Parameter, cupy: OfCuPy, untyped: Any
) -> None:
    index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 8)
    index.add(x)
    index.add(tensor, cast=True)
    index.add(cupy)
    index.add([[0.0] * 8])

    assert_type(index.search(x, 3), tuple[Floats, Labels])
    assert_type(index.search([[0.5] * 8], np.int64(3)), tuple[Floats, Labels])
    assert_type(index.search(x, 3, D=np.empty((1, 3), np.float32)), tuple[Floats, Labels])
    assert_type(index.search(tensor, 3), tuple[Tensor, Tensor])
    assert_type(index.search(parameter, 3, cast=True), tuple[Tensor, Tensor])
    assert_type(index.search(cupy, 3), tuple[Any, Any])
    assert_type(index.search(x, 3, D=tensor, I=cupy), tuple[Tensor, OfCuPy])
    assert_type(index.assign(x), Labels)
    assert_type(index.assign(tensor, 2), Tensor)
    assert_type(index.reconstruct(0), Floats)
    assert_type(index.reconstruct(0, tensor), Tensor)
    assert_type(index.reconstruct_n(0, 2), Floats)
    assert_type(index.reconstruct_n(0, 2, cupy), OfCuPy)
    assert_type(index.reconstruct_batch([1, 2]), Floats)
    assert_type(index.reconstruct_batch(tensor), Tensor)
    assert_type(
        index.search_and_reconstruct(x, 3), tuple[Floats, Labels, Floats]
    )
    _, _, profile = index.profile_search(x, 3)
    assert_type(profile, faiss.SearchProfile)
    assert_type(profile.compute_stages, list[faiss.ComputeStage])
    assert_type(profile.compute_stages[0].roofline, float | None)
    assert_type(profile.paths, dict[str, int] | None)
    assert_type(profile.roofline, float | None)
    assert_type(profile.spans[0].seconds, float)
    stats = index.transfer_stats()
    assert_type(stats["bytes_to_host"], int)
    assert_type(stats["searched_by"], str)
    index.search(untyped, untyped)


def device_arrays(queries: faiss.DeviceArray, index: faiss.GpuIndexFlatIP) -> None:
    found, labels = index.search(queries, 3)
    assert_type(found, faiss.DeviceArray)
    assert_type(labels.copy_to_host(), npt.NDArray[Any])
    assert_type(labels.shape, tuple[int, ...])
    assert_type(labels.__dlpack_device__(), tuple[int, int])


def without_an_index(x: Floats, tensor: Tensor, cupy: OfCuPy) -> None:
    resources = faiss.StandardGpuResources()
    assert_type(faiss.knn_gpu(resources, x, x, 3), tuple[Floats, Labels])
    assert_type(
        faiss.knn_gpu(resources, tensor, cupy, 3, metric=1, device=0),
        tuple[Tensor, Tensor],
    )
    assert_type(
        faiss.knn_gpu(resources, x, x, 3, tensor, cupy), tuple[Tensor, OfCuPy]
    )
    assert_type(faiss.pairwise_distance_gpu(resources, x, x), Floats)
    assert_type(faiss.pairwise_distance_gpu(resources, tensor, x), Tensor)


def cosine(x: Floats, tensor: Tensor, cupy: OfCuPy) -> None:
    resources = faiss.StandardGpuResources()
    index = faiss.GpuIndexFlatCosine(resources, 8, faiss.GpuIndexFlatConfig())
    flat: faiss.GpuIndexFlat = index
    index.add(cupy)
    assert_type(index.search(tensor, 3), tuple[Tensor, Tensor])
    assert_type(
        faiss.knn_gpu(resources, tensor, x, 3, metric="cosine"), tuple[Tensor, Tensor]
    )
    assert_type(
        faiss.pairwise_distance_gpu(resources, x, x, metric="cosine"), Floats
    )
    faiss.normalize_L2(x)
    faiss.normalize_L2(tensor)
    faiss.normalize_L2(cupy)


def configuration() -> None:
    config = faiss.StagedConfig()
    config.pinnedBytes = 1 << 20
    config.copyThreads = 2
    config.search = "exact"
    assert_type(config.computeLanes, int)
    pool = faiss.PooledGpuResources(
        lambda nbytes, device, stream: 0,
        lambda address, nbytes, device, stream: None,
    )
    index = faiss.GpuIndexFlat(pool, 8, 1, faiss.GpuIndexFlatConfig(), config)
    index = faiss.GpuIndexFlatL2(pool, 8, faiss.GpuIndexFlatConfig(), config)
    assert_type(pool.getMemoryInfo(), dict[int, dict[str, tuple[int, int]]])
    assert_type(faiss.pinned_empty((3, 4)), npt.NDArray[Any])
    assert_type(faiss.pinned_pool_stats(), dict[str, int])
    assert_type(faiss.get_num_gpus(), int)
    assert_type(faiss.has_native, bool)
    assert_type(faiss.native_problem, str | None)


def errors(index: faiss.GpuIndexFlat) -> None:
    try:
        index.search([[1.0]], 1)
    except faiss.InvalidArray as error:
        bad: ValueError = error
    except faiss.InvalidDevice as error:
        absent: RuntimeError = error
    except faiss.GpuUnavailable as error:
        unavailable: AttributeError = error


def names_of_faiss(folder: pathlib.Path) -> None:
    faiss.omp_set_num_threads(1)
    faiss.write_index(faiss.index_factory(8, "Flat"), str(folder / "index"))
