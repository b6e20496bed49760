"""A warning where vectors do not fit into float16, once for an index."""

from __future__ import annotations

import numpy as np
import pytest

DIMS = 4
MATCH = "beyond float16"
ONES = np.ones((5, DIMS), "float32")


def config(f, float16=True):
    made = f.GpuIndexFlatConfig()
    made.useFloat16 = float16
    return made


def large(value):
    x = ONES.copy()
    x[3, 2] = value
    return x


@pytest.fixture(params=["numpy", "list", "gpu", "float64"])
def as_array(request, gpu_array):
    return {
        "numpy": lambda x: x,
        "list": lambda x: x.tolist(),
        "gpu": gpu_array,
        "float64": lambda x: x.astype("float64"),
    }[request.param]


@pytest.mark.parametrize("value", [65520, -1e5, 1e30, np.inf])
@pytest.mark.parametrize("name", ["GpuIndexFlatL2", "GpuIndexFlatIP"])
def test_add_warns_once(faiss_ext, resources, as_array, name, value):
    index = getattr(faiss_ext, name)(resources, DIMS, config(faiss_ext))
    index.add(as_array(ONES))
    with pytest.warns(RuntimeWarning, match=MATCH) as caught:
        index.add(as_array(large(value)))
    assert caught[0].filename == __file__
    index.add(as_array(large(value)))  # a warning is an error here
    assert index.ntotal == 15
    # Another index has a warning of its own.
    other = getattr(faiss_ext, name)(resources, DIMS, config(faiss_ext))
    with pytest.warns(RuntimeWarning, match=MATCH):
        other.add(as_array(large(value)))


def test_squares_of_l2_count(faiss_ext, resources):
    l2 = faiss_ext.GpuIndexFlatL2(resources, DIMS, config(faiss_ext))
    ip = faiss_ext.GpuIndexFlatIP(resources, DIMS, config(faiss_ext))
    with pytest.warns(RuntimeWarning, match="256"):
        l2.add(large(300))
    ip.add(large(300))
    l1 = faiss_ext.GpuIndexFlat(
        resources, DIMS, faiss_ext.METRIC_L1, config(faiss_ext))
    l1.add(large(300))


def test_what_fits_and_float32_give_no_warning(faiss_ext, resources, as_array):
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS, config(faiss_ext))
    for value in (255.5, -255, 1e-8):
        index.add(as_array(large(value)))
    wide = faiss_ext.GpuIndexFlatL2(resources, DIMS, config(faiss_ext, False))
    wide.add(as_array(large(1e30)))


def test_copies_to_the_gpu_warn(faiss_ext, resources):
    cpu = faiss_ext.IndexFlatL2(DIMS)
    cpu.add(large(1e30))
    options = faiss_ext.GpuClonerOptions()
    options.useFloat16 = True
    several = faiss_ext.GpuMultipleClonerOptions()
    several.useFloat16 = True
    made = []
    for make in (
        lambda: faiss_ext.index_cpu_to_gpu(resources, 0, cpu, options),
        lambda: faiss_ext.index_cpu_to_all_gpus(cpu, several, ngpu=1),
        lambda: faiss_ext.GpuIndexFlatL2(resources, cpu, config(faiss_ext)),
        lambda: faiss_ext.GpuIndexFlat(resources, cpu, config(faiss_ext)),
    ):
        with pytest.warns(RuntimeWarning, match=MATCH):
            made.append(make())
    assert all(index.ntotal == 5 for index in made)
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS, config(faiss_ext))
    with pytest.warns(RuntimeWarning, match=MATCH):
        index.copyFrom(cpu)


def flat(f, resources):
    return f.GpuIndexFlatL2(resources, DIMS, config(f))


def several(f, resources, shard=False):
    options = f.GpuMultipleClonerOptions()
    options.useFloat16, options.shard = True, shard
    return f.index_cpu_to_gpus_list(f.IndexFlatL2(DIMS), options, gpus=[0, 0])


def transformed(f, resources):
    transform = f.RandomRotationMatrix(DIMS, DIMS)
    transform.init(5)
    return f.IndexPreTransform(transform, flat(f, resources))


HOLDERS = {
    "IndexIDMap": lambda f, r: f.IndexIDMap(flat(f, r)),
    "IndexPreTransform": transformed,
    "replicas": several,
    "shards": lambda f, r: several(f, r, True),
    "IDMap of replicas": lambda f, r: f.IndexIDMap2(several(f, r)),
    "refine": lambda f, r: f.IndexRefineFlat(flat(f, r)),
}


@pytest.mark.parametrize("kind", HOLDERS)
def test_an_index_that_passes_vectors_on_warns_once(faiss_ext, resources, kind):
    index = HOLDERS[kind](faiss_ext, resources)
    def add(value):
        if isinstance(index, faiss_ext.IndexIDMap):
            index.add_with_ids(large(value), np.arange(5))
        else:
            index.add(large(value))

    if kind != "shards":  # Faiss adds to them once
        add(3)
    with pytest.warns(RuntimeWarning, match=MATCH) as caught:
        add(1e30)
    assert len(caught) == 1 and caught[0].filename == __file__
    if kind != "shards":
        add(1e30)


@pytest.mark.parametrize("kind", HOLDERS)
def test_an_index_that_was_emptied_is_looked_at_anew(faiss_ext, resources, kind):
    index = HOLDERS[kind](faiss_ext, resources)

    def add(x):
        if isinstance(index, faiss_ext.IndexIDMap):
            index.add_with_ids(x, np.arange(5))
        else:
            index.add(x)

    add(ONES)
    index.reset()
    with pytest.warns(RuntimeWarning, match=MATCH):
        add(large(1e30))


def test_only_what_is_new_is_looked_at(faiss_ext, resources):
    index = flat(faiss_ext, resources)
    looked, of = [], faiss_ext.GpuIndexFlatL2.beyondFloat16

    def look(self, first, n):
        looked.append((first, n))
        return of(self, first, n)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faiss_ext.GpuIndexFlatL2, "beyondFloat16", look)
        index.add(ONES)
        index.add(ONES[:2])
        index.reset()
        index.add(ONES[:3])
        index.copyFrom(faiss_ext.IndexFlatL2(DIMS))
    assert looked == [(0, 5), (5, 2), (0, 3)]


def test_a_check_that_fails_is_no_failure_of_add(
    faiss_ext, resources, monkeypatch
):
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS, config(faiss_ext))

    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(faiss_ext.GpuIndexFlatL2, "beyondFloat16", fail)
    index.add(ONES)
    assert index.ntotal == 5
    assert (index.search(ONES, 1)[0] == 0).all()
