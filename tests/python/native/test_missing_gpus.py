"""What names a GPU that is not there, or nothing in place of resources or of an
index, is one clear error before Faiss is asked."""

from __future__ import annotations

import gc

import faiss as stock
import numpy as np
import pytest
from programs import run_program

DIMS = 8
BASE = np.eye(DIMS, dtype="float32")
#: Of two.
MISSING = [-1, 2, 99, -(2**31), 2**31 - 1, 2**40, -(10**30)]


@pytest.fixture(autouse=True)
def two_gpus(simulator):
    simulator.library.cuda_sim_set_device_count(2)
    yield
    # What exceptions still hold, while there are two.
    gc.collect()


@pytest.fixture
def cpu(faiss_ext):
    index = faiss_ext.IndexFlatL2(DIMS)
    index.add(BASE)
    return index


@pytest.fixture
def trained(faiss_ext):
    index = faiss_ext.index_factory(DIMS, "IVF2,Flat")
    index.train(np.tile(BASE, (20, 1)))
    return index


def config(f, kind, device):
    made = getattr(f, kind)()
    made.device = device
    return made


CLASSES = [
    ("GpuIndexFlat", "GpuIndexFlatConfig", (DIMS, 1)),
    ("GpuIndexFlatL2", "GpuIndexFlatConfig", (DIMS,)),
    ("GpuIndexFlatIP", "GpuIndexFlatConfig", (DIMS,)),
    ("GpuIndexIVFFlat", "GpuIndexIVFFlatConfig", (DIMS, 2, 1)),
    ("GpuIndexIVFPQ", "GpuIndexIVFPQConfig", (DIMS, 2, 2, 8, 1)),
    ("GpuIndexIVFScalarQuantizer", "GpuIndexIVFScalarQuantizerConfig",
     (DIMS, 2, 0)),
    ("GpuIndexBinaryFlat", "GpuIndexBinaryFlatConfig", (DIMS,)),
]


@pytest.mark.parametrize("name, kind, args", CLASSES)
def test_constructors_refuse_a_gpu_that_is_not_there(
    faiss_ext, resources, name, kind, args
):
    make = getattr(faiss_ext, name)
    for device in MISSING[:5]:
        with pytest.raises(
            faiss_ext.InvalidDevice,
            match=rf"^{name}: config.device: GPU {device}; .* 2 GPUs: give 0 to 1$",
        ):
            make(resources, *args, config(faiss_ext, kind, device))


@pytest.mark.parametrize("name, kind, args", CLASSES)
def test_constructors_want_resources(faiss_ext, name, kind, args):
    make = getattr(faiss_ext, name)
    for given in (None, 0, "cuda:0", object()):
        with pytest.raises(TypeError, match=f"^{name}: resources: .*StandardGpuR"):
            make(given, *args)
    with pytest.raises(TypeError, match=f"^{name}: no argument"):
        make()


@pytest.mark.parametrize("name, kind, args", CLASSES)
def test_none_is_no_argument_of_a_constructor(
    faiss_ext, resources, name, kind, args
):
    make = getattr(faiss_ext, name)
    with pytest.raises(TypeError, match=f"^{name}: argument 2 is None"):
        make(resources, None)
    with pytest.raises(TypeError, match=f"^{name}: argument {len(args) + 2} is N"):
        make(resources, *args, None)


def test_other_arguments_of_a_constructor_are_named(faiss_ext, resources, cpu):
    for args in ((resources, "8"), (resources, cpu, cpu), (resources, 8.5)):
        with pytest.raises(TypeError) as caught:
            faiss_ext.GpuIndexFlatL2(*args)
        said = str(caught.value)
        assert said.startswith("GpuIndexFlatL2(StandardGpuResources, "), said
        assert type(args[1]).__name__ in said.splitlines()[0]


CLONES = {
    "index_cpu_to_gpu": lambda f, r, gpu, index: f.index_cpu_to_gpu(r, gpu, index),
    "index_cpu_to_gpus_list": lambda f, r, gpu, index: f.index_cpu_to_gpus_list(
        index, gpus=[0, gpu]),
    "index_cpu_to_gpu_multiple_py": lambda f, r, gpu, index: (
        f.index_cpu_to_gpu_multiple_py([r, r], index, gpus=[gpu, 0])),
}


@pytest.mark.parametrize("way", CLONES)
@pytest.mark.parametrize("device", MISSING)
def test_functions_refuse_a_gpu_that_is_not_there(
    faiss_ext, resources, cpu, way, device
):
    with pytest.raises(
        faiss_ext.InvalidDevice, match=rf"GPU {device}; .* 2 GPUs: give 0 to 1$"
    ) as caught:
        CLONES[way](faiss_ext, resources, device, cpu)
    assert isinstance(caught.value, (ValueError, RuntimeError))
    # It still works.
    assert CLONES[way](faiss_ext, resources, 0, cpu).ntotal == DIMS


@pytest.mark.parametrize("way", CLONES)
@pytest.mark.parametrize("device", [None, "0", 0.0, "cuda:0", [0]])
def test_what_is_no_number_of_a_gpu_is_named(
    faiss_ext, resources, cpu, way, device
):
    with pytest.raises(TypeError, match="(device|gpus.*): .* an int"):
        CLONES[way](faiss_ext, resources, device, cpu)


def test_numbers_of_other_libraries_are_taken(faiss_ext, cpu):
    # Resources that end here, while there are two GPUs.
    res = faiss_ext.StandardGpuResources()
    assert faiss_ext.index_cpu_to_gpu(res, np.int64(1), cpu).getDevice() == 1
    several = faiss_ext.index_cpu_to_gpus_list(cpu, gpus=np.array([1, 0]))
    assert several.count() == 2


@pytest.mark.parametrize("way", CLONES)
def test_what_is_no_index_is_named(faiss_ext, resources, way):
    for given in (None, BASE, 7):
        with pytest.raises(TypeError, match="^index: .* an index on the CPU"):
            CLONES[way](faiss_ext, resources, 0, given)


def test_lists_that_do_not_fit(faiss_ext, resources, cpu):
    f, r = faiss_ext, resources
    for resources_, gpus, found in (
        ([r], [0, 0], "1 for 2"), ([r, r], [0], "2 for 1"), ([], [0], "0 for 1"),
    ):
        with pytest.raises(f.InvalidDevice, match=f"^resources: {found}"):
            f.index_cpu_to_gpu_multiple_py(resources_, cpu, gpus=gpus)
    # More resources than GPUs.
    with pytest.raises(f.InvalidDevice, match=r"^gpus\[2\]: GPU 2; "):
        f.index_cpu_to_gpu_multiple_py([r, r, r], cpu)
    for resources_ in (r, None, 3):
        with pytest.raises(TypeError, match="^resources: .*a list is needed"):
            f.index_cpu_to_gpu_multiple_py(resources_, cpu)
    with pytest.raises(TypeError, match=r"^resources\[1\]: None"):
        f.index_cpu_to_gpu_multiple_py([r, None], cpu)
    providers, devices = f.GpuResourcesVector(), f.Int32Vector()
    providers.push_back(r)
    for device in (0, 1):
        devices.push_back(device)
    with pytest.raises(f.InvalidDevice, match="^provider: 1 for 2 GPUs"):
        f.index_cpu_to_gpu_multiple(providers, devices, cpu)
    with pytest.raises(TypeError, match="^provider: list"):
        f.index_cpu_to_gpu_multiple([r], devices, cpu)
    with pytest.raises(TypeError, match="^devices: list"):
        f.index_cpu_to_gpu_multiple(providers, [0], cpu)


def test_no_gpu_is_an_error_and_not_an_empty_index(faiss_ext, resources, cpu):
    f = faiss_ext
    with pytest.raises(f.InvalidDevice, match="^gpus: no GPU"):
        f.index_cpu_to_gpus_list(cpu, gpus=[])
    with pytest.raises(f.InvalidDevice, match="^gpus: no GPU"):
        f.index_cpu_to_gpu_multiple_py([], cpu)
    with pytest.raises(f.InvalidDevice, match="^devices: no GPU"):
        f.index_cpu_to_gpu_multiple(f.GpuResourcesVector(), f.Int32Vector(), cpu)
    for ngpu in (0, -2, 3, 64):
        for call in (f.index_cpu_to_all_gpus, f.index_cpu_to_gpus_list):
            with pytest.raises(
                f.InvalidDevice, match=rf"^ngpu: {ngpu}; .* 1 to 2, or -1 for all"
            ):
                call(cpu, ngpu=ngpu)
    for ngpu in (None, "1", 1.0):
        with pytest.raises(TypeError, match="^ngpu: "):
            f.index_cpu_to_all_gpus(cpu, ngpu=ngpu)


def test_first_gpus_and_all(faiss_ext, cpu):
    for ngpu, count in ((-1, 2), (2, 2)):
        index = faiss_ext.index_cpu_to_all_gpus(cpu, ngpu=ngpu)
        assert index.count() == count and index.ntotal == DIMS
    one = faiss_ext.index_cpu_to_all_gpus(cpu, ngpu=1)
    assert type(one) is faiss_ext.GpuIndexFlat and one.getDevice() == 0
    assert faiss_ext.get_num_gpus() == 2


def test_kmeans_on_more_gpus_than_there_are(faiss_ext, simulator):
    for gpu in (3, 99, -2):
        with pytest.raises(
            faiss_ext.InvalidDevice, match=f"^gpu: {gpu}; .* give 1 to 2, or -1"
        ):
            faiss_ext.Kmeans(DIMS, 2, gpu=gpu)
    simulator.library.cuda_sim_set_device_count(1)
    with pytest.raises(faiss_ext.InvalidDevice, match="sees 1 GPU: give 1, or -1"):
        faiss_ext.Kmeans(DIMS, 2, gpu=2)
    for gpu in (False, True, -1, 1):
        faiss_ext.Kmeans(DIMS, 2, gpu=gpu)


def test_options_of_the_other_function_are_named(faiss_ext, resources, cpu):
    with pytest.raises(TypeError, match="^co: GpuClonerOptions; .*Multiple"):
        faiss_ext.index_cpu_to_all_gpus(cpu, co=faiss_ext.GpuClonerOptions())
    with pytest.raises(TypeError, match="^options: int; "):
        faiss_ext.index_cpu_to_gpu(resources, 0, cpu, 7)


@pytest.mark.parametrize("device", [d for d in MISSING if d != -1])
@pytest.mark.parametrize("k", [3, None])
def test_brute_force_refuses_a_gpu_that_is_not_there(
    faiss_ext, resources, gpu_array, device, k
):
    for x in (BASE, gpu_array(BASE)):
        with pytest.raises(faiss_ext.InvalidDevice, match=f"^device: GPU {device};"):
            if k:
                faiss_ext.knn_gpu(resources, x, x, k, device=device)
            else:
                faiss_ext.pairwise_distance_gpu(resources, x, x, device=device)


def test_brute_force_wants_resources_and_an_int(faiss_ext, resources):
    for call in (
        lambda res, device: faiss_ext.knn_gpu(res, BASE, BASE, 1, device=device),
        lambda res, device: faiss_ext.pairwise_distance_gpu(
            res, BASE, BASE, device=device),
    ):
        with pytest.raises(TypeError, match="^res: None; resources are needed"):
            call(None, -1)
        with pytest.raises(TypeError, match="^device: None; "):
            call(resources, None)
        call(resources, np.int64(-1))


def test_brute_force_of_c_pointers(faiss_ext, resources):
    args = faiss_ext.GpuDistanceParams()
    if hasattr(args, "device"):
        args.device = 99
        with pytest.raises(faiss_ext.InvalidDevice, match="^args.device: GPU 99;"):
            faiss_ext.bfKnn(resources, args)
    for given, name in (((None, args), "resources"), ((resources, None), "args")):
        with pytest.raises(TypeError, match=f"^{name}: None; "):
            faiss_ext.bfKnn(*given)


@pytest.mark.parametrize("device", MISSING)
def test_resources_refuse_a_gpu_that_is_not_there(faiss_ext, device):
    made = faiss_ext.StandardGpuResources()
    assert isinstance(made, stock.StandardGpuResources)
    stream = faiss_ext.cast_integer_to_cudastream_t(0)
    for call in (
        lambda: made.getDefaultStream(device),
        lambda: made.setDefaultStream(device, stream),
        lambda: made.revertDefaultStream(device),
    ):
        with pytest.raises(faiss_ext.InvalidDevice, match=f"^device: GPU {device};"):
            call()
    assert made.getMemoryInfo() == {}
    made.getDefaultStream(1)


@pytest.mark.parametrize("device", MISSING[:5])
def test_resources_on_a_pool_refuse_a_gpu_that_is_not_there(faiss_ext, device):
    made = faiss_ext.PooledGpuResources(lambda *_: 0, lambda *_: None)
    for call in (
        lambda: made.getDefaultStream(device),
        lambda: made.setDefaultStream(device, 0),
        lambda: made.revertDefaultStream(device),
        lambda: made.getTempMemoryAvailable(device),
    ):
        with pytest.raises(RuntimeError, match=f"device: GPU {device};"):
            call()


#: What each prints on a machine where no GPU is visible.
WITHOUT_GPU = """
import faiss_ext as f, numpy as np
assert f.get_num_gpus() == 0
x = np.eye(8, dtype="float32")
cpu = f.IndexFlatL2(8)
cpu.add(x)
res = f.StandardGpuResources()
calls = (
    lambda: f.GpuIndexFlatL2(res, 8),
    lambda: f.GpuIndexBinaryFlat(res, 32),
    lambda: f.GpuIndexIVFFlat(res, 8, 2, f.METRIC_L2),
    lambda: f.GpuIndexFlat(res, cpu),
    lambda: res.syncDefaultStreamCurrentDevice(),
    lambda: f.pinned_empty(3),
    lambda: f.GpuIndexIVFFlat(res, 8, 2, f.METRIC_L2, f.GpuIndexIVFFlatConfig()),
    lambda: f.GpuIndexFlat(res, cpu, f.GpuIndexFlatConfig()),
    lambda: f.index_cpu_to_gpu(res, 0, cpu),
    lambda: f.index_cpu_to_all_gpus(cpu),
    lambda: f.index_cpu_to_all_gpus(cpu, ngpu=1),
    lambda: f.index_cpu_to_gpus_list(cpu, gpus=[0]),
    lambda: f.knn_gpu(res, x, x, 1),
    lambda: f.knn_gpu(res, x, x, 1, device=0),
    lambda: f.pairwise_distance_gpu(res, x, x),
    lambda: f.bfKnn(res, f.GpuDistanceParams()),
    lambda: res.getDefaultStream(0),
    lambda: f.PooledGpuResources(lambda *_: 0, print).getDefaultStream(0),
)
for call in calls:
    try:
        call()
    except RuntimeError as error:
        # In C++ it is Faiss' exception.
        assert isinstance(error, f.InvalidDevice) or call is calls[-1], error
        assert "this process sees no GPU" in str(error), error
        assert "CUDA_VISIBLE_DEVICES" in str(error), error
    else:
        raise SystemExit("taken")
assert (cpu.search(x, 1)[1][:, 0] == range(8)).all()
print("done")
"""


def test_no_gpu_visible():
    run_program(WITHOUT_GPU, CUDA_SIM_DEVICES="0")


def test_stock_constructors_reached_through_ours_keep_what_they_keep(
    faiss_ext, resources
):
    """The check is before Faiss' own constructor, not in its place."""
    index = faiss_ext.GpuIndexFlatL2(
        resources, DIMS, faiss_ext.GpuIndexFlatConfig(), faiss_ext.StagedConfig())
    index.add(BASE)
    assert index.ntotal == DIMS
    assert faiss_ext.GpuIndexFlatL2(resources.getResources(), DIMS).d == DIMS
