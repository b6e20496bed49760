"""Indexes that hold others: what is asked of CUDA is what those on a GPU need."""

from __future__ import annotations

import faiss as stock
import numpy as np
import pytest
from programs import run_program

from faiss_ext._index import (
    classes as index_classes,
    faiss_calls as stock_calls,
    nested as held_indexes,
    staged as staged_indexes,
)

DIMS, K = 4, 3

#: CPU indexes of every kind that holds others, used in all ways.
ON_CPU = """
import faiss_ext as f, numpy as np
x = np.arange(160, dtype="float32").reshape(40, 4)

def several(kind, put):
    index = kind(4)
    for _ in range(2):
        put(index, f.IndexFlatL2(4))
    return index

def use():
    for index in (
        f.IndexIDMap(f.IndexFlatL2(4)),
        f.index_factory(4, "PCA2,Flat"),
        f.index_factory(4, "Flat,RFlat"),
        several(f.IndexReplicas, f.IndexReplicas.add_replica),
        several(f.IndexShards, f.IndexShards.add_shard),
    ):
        index.train(x)
        if isinstance(index, f.IndexIDMap):
            index.add_with_ids(x, np.arange(40))
        else:
            index.add(x)
        assert (index.search(x, 1)[1][:, 0] == range(40)).all(), index
    bits = np.arange(40, dtype="uint8")[:, None]
    index = f.IndexBinaryReplicas(8)
    index.add_replica(f.IndexBinaryFlat(8))
    index.add(bits)
    assert (index.search(bits, 1)[1][:, 0] == range(40)).all()
"""

#: Where no GPU is visible.
WITHOUT_GPU = f"{ON_CPU}\nuse()\nprint('done', flush=True)"

#: In a child of a process that has used one.
FORKED = f"""{ON_CPU}
import os
used = f.GpuIndexFlatL2(f.StandardGpuResources(), 4)
used.add(x)
used.search(x, 1)
own = f.IndexIDMap(f.GpuIndexIVFFlat(f.StandardGpuResources(), 4, 1, f.METRIC_L2))
child = os.fork()
if not child:
    use()
    try:
        own.search(x, 1)
    except RuntimeError as error:
        assert "fork" in str(error), error
    else:
        raise SystemExit("taken")
    print("done", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("text, devices", [(WITHOUT_GPU, "0"), (FORKED, "1")])
def test_those_on_the_cpu_need_no_gpu(text, devices):
    run_program(text, CUDA_SIM_DEVICES=devices)


def replicas(f, inner):
    index = f.IndexReplicas(DIMS)
    index.add_replica(inner)
    return index


HOLDERS = {
    "map": lambda f, inner: f.IndexIDMap(inner),
    "replicas": replicas,
    "map of replicas": lambda f, inner: f.IndexIDMap(replicas(f, inner)),
    "refine": lambda f, inner: f.IndexRefineFlat(inner),
}
INNER = {
    "CPU": lambda f, r: f.IndexFlatL2(DIMS),
    "ours": lambda f, r: f.GpuIndexFlatL2(r, DIMS),
    "Faiss'": lambda f, r: index_classes.class_of(stock.GpuIndexFlatL2)(r, DIMS),
}


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("kind", HOLDERS)
def test_leaves(faiss_ext, resources, kind, inner):
    index = INNER[inner](faiss_ext, resources)
    found = list(held_indexes.leaves(HOLDERS[kind](faiss_ext, index)))
    if kind == "refine":
        assert type(found.pop()) is stock.IndexFlat
    assert [int(leaf.this) for leaf in found] == [int(index.this)]
    assert isinstance(found[0], (stock.IndexFlat, stock.GpuIndexFlat))
    if isinstance(index, stock.GpuIndex):
        ours = staged_indexes.as_our_flat(found[0])
        assert (ours is None) == (inner == "Faiss'")


@pytest.mark.parametrize("inner", INNER)
def test_pinned_arrays_go_around_faiss_own_gpu_indexes_alone(
    faiss_ext, resources, vectors, simulator, monkeypatch, inner
):
    index = faiss_ext.IndexIDMap(INNER[inner](faiss_ext, resources))
    x = faiss_ext.pinned_empty((40, DIMS))
    x[:] = vectors(40, DIMS, 3)
    copied, written = [], stock_calls._written
    monkeypatch.setattr(
        stock_calls, "_written", lambda *pair: copied.append(pair) or written(*pair))
    index.add_with_ids(x, np.arange(40))
    D = faiss_ext.pinned_empty((40, K))
    I = faiss_ext.pinned_empty((40, K), "int64")
    simulator.reset_counters()
    found = index.search(x, K, D=D, I=I)
    asked = simulator.calls("cudaPointerGetAttributes")
    if inner == "CPU":
        assert not asked
    assert found[0] is D and found[1] is I and (D[:, 0] == 0).all()
    assert len(copied) == (2 if inner == "Faiss'" else 0)
