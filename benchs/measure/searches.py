"""One database, and every way of searching it: stock Faiss, faiss_ext, peers."""

from __future__ import annotations

import functools
import time
from concurrent.futures import ThreadPoolExecutor

import faiss
import faiss_ext
import numpy as np

from . import memory, peers
from .floors import floors
from .gpu_arrays import on_host
from .native import Index
from .oracle import Oracle
from .timing import Contender

if not faiss_ext.has_native:
    raise ImportError(
        f"{faiss_ext.native_problem}; PYTHONPATH must name the built package "
        "first (README.md)"
    )

_RANDOM_ROWS = 1 << 14

#: What is timed a second time, as "<name> again"; the ratio is the noise. On an
#: index of its own: two that differ by nothing but where their vectors lie in GPU
#: memory were 1 to 2 % apart.
TWICE = "stock"


@functools.lru_cache(maxsize=4)
def database(nb, d):
    """The vectors of every case with such a database; not to be written to."""
    return random_vectors(nb, d, 1)


def random_vectors(n, d, seed):
    """Normal, float32: full mantissas, so that the GPU draws the power that it
    draws for real data. The same on any number of threads."""
    vectors = np.empty((n, d), "float32")
    firsts = range(0, n, _RANDOM_ROWS)
    sources = np.random.SeedSequence(seed).spawn(len(firsts))

    def fill(first, source):
        np.random.default_rng(source).standard_normal(
            dtype="float32", out=vectors[first : first + _RANDOM_ROWS]
        )

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, firsts, sources))
    return vectors


class Searches:
    """Indexes over base [nb, d], and contenders that search them for the first n
    queries.

    Only the indexes that are asked for are made. Stock and ours use one
    ``StandardGpuResources``; those made in C++ another one.
    """

    def __init__(self, session, base, queries, k, rows=()):
        """`rows`: queries to check besides the first, the middle, the last."""
        self.session, self.native = session, session.native
        self.base, self.queries = base, queries
        n = len(queries)
        self.oracle = Oracle(
            base, queries, sorted({0, 1 % n, n // 2, n - 1, *rows}), k)
        self._made = {}

    def index(self, kind, **config):
        """``stock`` or ``stock again``, another one; ``ours``; ``C++ stock`` or
        ``C++ ours``. `config`: members of StagedConfig, or what
        its `tune` sets, for ``ours``."""
        key = (kind, *sorted(config.items()))
        if key not in self._made:
            self._made[key] = self._make(kind, config)
        return self._made[key]

    def forget(self, kind, **config):
        """Free an index, if it was made."""
        self._made.pop((kind, *sorted(config.items())), None)

    def _make(self, kind, config):
        if kind.startswith("C++"):
            return Index(self.native, kind.endswith("ours"), self.base)
        d = self.base.shape[1]
        flat = faiss.GpuIndexFlatConfig()
        if kind.startswith(TWICE):
            index = faiss.GpuIndexFlatL2(resources(), d, flat)
        else:
            staged = faiss_ext.StagedConfig()
            for name, value in config.items():
                if hasattr(staged, name):
                    setattr(staged, name, value)
                else:
                    staged.tune(name, value)
            index = faiss_ext.GpuIndexFlatL2(resources(), d, flat, staged)
        index.add(self.base)
        self.native.synchronize()
        return index

    # Contenders. Each holds its outputs until the last one of a case is gone.

    def given(self, name, kind, x, outputs, *, wait=False, **config):
        """Search into given arrays. `outputs` makes (D, I) before each run.
        `wait`: for the device, where the call itself does not."""
        index = self.index(kind, **config)
        out = {}

        def prepare():
            out["D"], out["I"] = outputs()

        if kind.startswith("C++"):
            def run():
                return index.search(x, out["D"], out["I"], wait=wait)
        else:
            def run():
                index.search(x, out["D"].shape[1], D=out["D"], I=out["I"])
                if wait:
                    self.native.synchronize()

        def check():
            self.native.synchronize()
            return self.oracle.check(on_host(out["D"]), on_host(out["I"]))

        reset, counts = _counts(index)

        def spoil():
            memory.poison(out["D"], out["I"])
            self.native.synchronize()
            reset()

        return Contender(name, run, prepare, check, spoil, counts, out.clear)

    def returned(self, name, kind, x, k, *, wait=False, **config):
        """Search that makes its own outputs."""
        index = self.index(kind, **config)
        out = []

        def run():
            out[:] = index.search(x, k)
            if wait:
                self.native.synchronize()

        def check():
            self.native.synchronize()
            return self.oracle.check(*map(on_host, out))

        reset, counts = _counts(index)
        return Contender(name, run, None, check, reset, counts, out.clear)

    def by_pointers(self, name, kind, x, D, I, *, wait, in_a_row=1, **config):
        """The C++ method as Faiss' Python has it, with pointers to arrays on the
        GPU. `wait`: for the device, afterwards. `in_a_row`: so many calls before
        the wait; a run is one of them, on average."""
        index = self.index(kind, **config)
        arguments = (
            x.shape[0],
            faiss.cast_integer_to_float_ptr(_address(x)),
            D.shape[1],
            faiss.cast_integer_to_float_ptr(_address(D)),
            faiss.cast_integer_to_idx_t_ptr(_address(I)),
        )

        def run():
            begin = time.perf_counter()
            for _ in range(in_a_row):
                index.search_c(*arguments)
            if wait:
                self.native.synchronize()
            return (time.perf_counter() - begin) / in_a_row

        def check():
            self.native.synchronize()
            return self.oracle.check(D.get(), I.get())

        reset, counts = _counts(index)

        def spoil():
            memory.poison(D, I)
            reset()

        # The pointers do not keep the arrays.
        run.arrays = x, D, I
        return Contender(name, run, None, check, spoil, counts)

    def peers(self, x, k, wanted=peers.NAMES.__contains__):
        """Whatever peer library is installed and `wanted` takes, with arrays on
        the GPU."""
        return [
            Contender(
                name,
                run,
                None,
                lambda results=results: self.oracle.check(*results()),
            )
            for name, run, results in peers.available(
                self.session, self.base, x, k, wanted
            )
        ]

    def floors(self, n, k):
        """Function of a contender's name: its floors."""
        nb, d = self.base.shape

        def bounds(name):
            on_gpu = "GPU" in name or name in peers.NAMES
            return floors(
                self.session.ceilings, n=n, k=k, nb=nb, d=d,
                queries_on_host=not on_gpu,
                results_on_host=not on_gpu or "pinned" in name,
            )

        return bounds


def _counts(index):
    """What sets the index's counts to nothing, and what reads them, if it has
    any."""
    if not hasattr(index, "transfer_stats"):
        return lambda: None, None
    return index.reset_transfer_stats, index.transfer_stats


_resources = []


def resources():
    """One object for the process: it takes a tenth of a second to make, and
    1.5 GiB of GPU memory."""
    if not _resources:
        _resources.append(faiss.StandardGpuResources())
    return _resources[0]


def _address(array):
    return array.__cuda_array_interface__["data"][0]
