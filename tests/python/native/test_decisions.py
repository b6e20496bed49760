"""Of all that the Faiss here has for GPUs, somebody has decided whether it is
ours, Faiss' own, or refused (decisions.py)."""

import inspect
import pathlib
from types import ModuleType

import decisions
import faiss as stock
import pytest


def test_everything_of_faiss_gpu_module_is_decided(faiss_ext):
    assert decisions.undecided(stock, faiss_ext) == []


def test_everything_of_faiss_torch_helpers_is_decided(faiss_ext):
    source = pathlib.Path(stock.__file__).parent / "contrib/torch_utils.py"
    assert decisions.undecided_of_torch_utils(
        source.read_text(), faiss_ext.GpuIndexFlatL2) == []


def test_the_lists_name_nothing_twice_and_nothing_of_ours(faiss_ext):
    lists = (decisions.FAISS_OWN_GPU_CLASSES, decisions.FAISS_OWN_GPU_FUNCTIONS,
             decisions.FAISS_OWN_GPU_MEMBERS, decisions.FAISS_OWN_GPU_POINTERS,
             decisions.OF_TORCH_UTILS)
    for one in lists:
        for other in lists:
            assert one is other or not one & other
    for name in decisions.FAISS_OWN_GPU_CLASSES | decisions.FAISS_OWN_GPU_FUNCTIONS:
        assert getattr(stock, name, None) is getattr(faiss_ext, name, None), name


def test_what_takes_arrays_on_a_gpu_takes_them_on_the_host(faiss_ext):
    from faiss_ext._index import search, vectors

    every = {name.rpartition(".")[2] for name in decisions.METHODS}
    assert search.METHODS.keys() | vectors.METHODS.keys() <= every


@pytest.fixture
def made_up(faiss_ext):
    """A Faiss with one class and one function, and what stands for them."""

    class GpuIndexNew:
        def add(self, x, numeric_type=0):
            pass

        def reset(self):
            pass

        add_c = reset

    def index_to_gpus(index, ngpu=-1):
        pass

    class Ours(GpuIndexNew):
        def add(self, x, numeric_type=None, *, cast=False, **later):
            pass

    theirs, ours = ModuleType("faiss"), ModuleType("faiss_ext")
    theirs.GpuIndexNew, ours.GpuIndexNew = GpuIndexNew, Ours
    theirs.index_to_gpus = index_to_gpus
    ours.index_to_gpus = lambda index, ngpu=-1: None
    return theirs, ours


def test_what_is_decided_is_no_news(made_up):
    assert decisions.undecided(*made_up) == []


def test_news_are_noticed(made_up):
    theirs, ours = made_up
    both = {"CudaThing": type("CudaThing", (), {}), "gpu_news": len, "of_cpus": len}
    for module in made_up:
        vars(module).update(both)
    theirs.GpuIndexNew.search_by_magic = lambda self, x: x
    theirs.GpuIndexNew.add = lambda self, x, y, numeric_type=0, *, xq_train=None: 0
    theirs.index_to_gpus = lambda index, gpus, ngpu=-1: 0
    assert decisions.undecided(*made_up) == [
        "CudaThing: Faiss' own, and in no list",
        "GpuIndexNew.add(y): ours has no such parameter",
        "GpuIndexNew.add(numeric_type): ours does not take it at place 3",
        "GpuIndexNew.search_by_magic: Faiss' own, and in no list",
        "gpu_news: Faiss' own, and in no list",
        "index_to_gpus(gpus): ours has no such parameter",
        "index_to_gpus(ngpu): ours does not take it at place 2",
    ]


def test_news_of_the_torch_helpers_are_noticed(faiss_ext):
    found = decisions.undecided_of_torch_utils(
        inspect.cleandoc("""
            def handle_torch_Index(the_class):
                def torch_replacement_add(self, x, other_type=0): pass
                def torch_replacement_search(self, x, k, D=None, I=None): pass
                def torch_replacement_guess(self, x): pass
        """),
        faiss_ext.GpuIndexFlatL2,
    )
    assert len(found) == 2
    assert found[0].startswith("torch_utils.torch_replacement_add(other_type): ours")
    assert found[1].startswith("torch_utils.torch_replacement_guess: in no list")
