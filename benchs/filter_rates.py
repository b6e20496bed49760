#!/usr/bin/env python3
"""How many vectors does the exact search's filter let pass, on which data?

    benchs/filter_rates.py BUILD_DIR [--out FILE] [--smoke] [--only NAME]

Counts, on the CPU, with the functions that the GPU runs (benchs/cpp/FilterRates.cpp
of BUILD_DIR); scores are NumPy's products of the half-precision copies, whose error
is within the bound of the tensor cores'. No times: any machine will do. Writes a
record that benchs/report.py shows. --smoke: tiny, and keeps nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import pathlib
import sys

# One core: others may be measuring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from measure.environment import machine

HERE = pathlib.Path(__file__).resolve().parent
KS = (1, 10, 100, 1000)
QUERIES = 200
#: Rows whose scores are there at once.
BLOCK = 16384
#: The first chunk, and how the chunks after it grow.
SAMPLE = 16384
SAMPLE_PER_K = 64
GROWTH = 4
#: Every how manieth row a chunk takes.
STRIDE = 64
#: How many vectors a chunk of the engine has at most (gpu/call/Tuning.h).
ENGINE = 65536
#: Of vectors that come by turns.
KINDS = 64


def capacity(k):
    """How many vectors the list of a query has room for; more: the last path."""
    return max(1024, 8 * k)


def normal(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def uniform(rng, nb):
    return rng.random((nb, 128), dtype=np.float32)


def clustered(rng, nb):
    centres = normal(np.random.default_rng(1), 1000, 128)
    return centres[rng.integers(0, 1000, nb)] + 0.3 * normal(rng, nb, 128)


def in_order(rng, nb):
    """Of the clusters, one after the other."""
    centres = normal(np.random.default_rng(1), 1000, 128)
    return centres[np.sort(rng.integers(0, 1000, nb))] + 0.3 * normal(rng, nb, 128)


def by_turns(rng, nb):
    """Of several kinds, one vector of each and again."""
    centres = normal(np.random.default_rng(6), KINDS, 128)
    first = rng.integers(0, KINDS)
    return centres[(first + np.arange(nb)) % KINDS] + 0.3 * normal(rng, nb, 128)


def unit_norm(rng, nb):
    return unit(normal(rng, nb, 128))


def heavy_tailed(rng, nb):
    """Norms that differ by factors of ten."""
    return normal(rng, nb, 128) * np.exp(normal(rng, nb, 1))


def sift_like(rng, nb):
    """Integers of 0 to 255, many of them small, of norm 512, in clusters."""
    centres = np.random.default_rng(2).gamma(0.7, 1, (2000, 128)).astype(np.float32)
    x = centres[rng.integers(0, 2000, nb)] * rng.gamma(4, 0.25, (nb, 128)).astype(
        np.float32)
    return np.minimum(np.floor(512 * unit(x)), 255)


def embedding_like(rng, nb):
    """Few directions have most of the variance; a mean as long as the rest; unit
    norm."""
    fixed = np.random.default_rng(3)
    directions = unit(normal(fixed, 96, 768))
    sizes = (1 / np.sqrt(1 + np.arange(96, dtype=np.float32)))
    mean = unit(normal(fixed, 1, 768)) * 2
    x = (normal(rng, nb, 96) * sizes) @ directions
    x += mean
    x += 0.02 * normal(rng, nb, 768)
    return unit(x)


def near_duplicates(count):
    """So many vectors that are the same but for what half precision cannot tell."""
    def make(rng, nb):
        centres = normal(np.random.default_rng(4), count, 128)
        return centres[rng.integers(0, count, nb)] * (
            1 + np.float32(1e-5) * normal(rng, nb, 128))
    return make


def ten_of_each(rng, nb):
    """Every vector ten times, bit for bit."""
    rows = normal(np.random.default_rng(5), nb // 10 + 1, 128)
    return rows[rng.integers(0, len(rows), nb)]


#: name: (vectors, how many, the order of chunks, float16 store, whether by the finer
#: filter)
DATA = {
    "uniform": (uniform, 1_000_000, "strided", False, True),
    "uniform, float16 store": (uniform, 1_000_000, "strided", True, True),
    "clusters": (clustered, 1_000_000, "strided", False, True),
    "clusters in order": (in_order, 1_000_000, "strided", False, True),
    "clusters in order, contiguous chunks": (in_order, 1_000_000, "contiguous", False, True),
    "clusters in order, the engine's chunks": (
        in_order, 1_000_000, "engine", False, True),
    "kinds by turns, as many as rows that chunks leave out": (
        by_turns, 1_000_000, "strided", False, True),
    "kinds by turns, the engine's chunks": (by_turns, 1_000_000, "engine", False, True),
    "uniform, the engine's chunks": (uniform, 1_000_000, "engine", False, True),
    "unit norm": (unit_norm, 1_000_000, "strided", False, True),
    "norms of every size": (heavy_tailed, 1_000_000, "strided", False, True),
    "norms of every size, a threshold for 128": (
        heavy_tailed, 1_000_000, "strided", False, False),
    "SIFT-like": (sift_like, 1_000_000, "strided", False, True),
    "embedding-like, d 768": (embedding_like, 300_000, "strided", False, True),
    "embedding-like, d 768, float16 store": (
        embedding_like, 300_000, "strided", True, True),
    "ten of each": (ten_of_each, 1_000_000, "strided", False, True),
    "near duplicates, a thousand of each": (
        near_duplicates(1000), 1_000_000, "strided", False, True),
    "near duplicates, ten thousand of each": (
        near_duplicates(100), 1_000_000, "strided", False, True),
}
#: What a user may be expected to have; of the others falling back is the design.
ORDINARY = [name for name in DATA if not name.startswith("near duplicates")
            and not name.endswith(("contiguous chunks", "a threshold for 128",
                                   "that chunks leave out"))]


def prime_from(number):
    """The least prime number from there on; 1 from 1."""
    while number > 1 and any(number % i == 0 for i in range(2, number)):
        number += 1
    return number


class Chunks:
    """Which rows they take, and where each ends."""

    def __init__(self, kind, nb, sample):
        self.nb = nb
        self.sample = sample
        #: Of equal size, in place of growing ones, or 0.
        self.equal = 0
        step = {"contiguous": 1, "strided": min(STRIDE, nb)}.get(kind)
        if step is None:
            # As planExact does: each takes one row of so many.
            most = ENGINE if sample == SAMPLE else sample
            step = self.equal = prime_from(-(-nb // most))
        self.rows = np.concatenate([np.arange(r, nb, step) for r in range(step)])

    def ends(self, k):
        """Of each chunk, in a search for k."""
        if self.equal:
            return np.cumsum([len(range(r, self.nb, self.equal))
                              for r in range(self.equal)]).tolist()
        ends = [max(self.sample, SAMPLE_PER_K * k)]
        while ends[-1] < self.nb:
            ends.append(ends[-1] * GROWTH)
        return [*ends[:-1], self.nb]


class Library:
    """FilterRates.cpp."""

    def __init__(self, build):
        path = pathlib.Path(build) / "benchs/cpp/libfaiss_ext_filter_rates.so"
        self.library = ctypes.CDLL(os.fspath(path.resolve()))
        for name, result, arguments in (
            ("new", ctypes.c_void_p, "plii ip"),
            ("delete", None, "p"),
            ("queries", None, "pplp"),
            ("search", ctypes.c_void_p, "piil"),
            ("end", None, "p"),
            ("sample", None, "pppl"),
            ("filter", None, "pppl"),
            ("tighten", None, "p"),
            ("counts", None, "pppp"),
        ):
            function = getattr(self.library, f"faiss_ext_filter_rates_{name}")
            function.restype = result
            function.argtypes = [
                {"p": ctypes.c_void_p, "l": ctypes.c_int64, "i": ctypes.c_int}[one]
                for one in arguments.replace(" ", "")
            ]
            setattr(self, name, function)


def pointer(array):
    assert array.flags.c_contiguous
    return array.ctypes.data


def count(library, x, vectors, product, half, order, fine, ks, sample):
    """{k: (passed [n], list [n], window [n])}"""
    nb, d = vectors.shape
    copies = np.empty((nb, d), np.float32)
    data = library.new(pointer(vectors), nb, d, product, half, pointer(copies))
    x_copies = np.empty_like(x)
    library.queries(data, pointer(x), len(x), pointer(x_copies))
    chunks = Chunks(order, nb, sample)
    rows = chunks.rows
    searches = {k: library.search(data, k, int(fine), 1 << 16) for k in ks}
    ends = {k: chunks.ends(k) for k in ks}
    stops = sorted({end for some in ends.values() for end in some})
    # The sample, before anything passes.
    for k, search in searches.items():
        first = np.ascontiguousarray(rows[:ends[k][0]])
        scores = np.ascontiguousarray(x_copies @ copies[first].T)
        library.sample(search, pointer(scores), pointer(first), len(first))
    begin = 0
    for stop in stops:
        while begin < stop:
            block = np.ascontiguousarray(rows[begin:min(stop, begin + BLOCK)])
            scores = np.ascontiguousarray(x_copies @ copies[block].T)
            for search in searches.values():
                library.filter(search, pointer(scores), pointer(block), len(block))
            begin += len(block)
        for k, search in searches.items():
            if stop in ends[k]:
                library.tighten(search)
    found = {}
    for k, search in searches.items():
        found[k] = np.empty((3, len(x)), np.int64)
        library.counts(search, *map(pointer, found[k]))
        library.end(search)
    library.delete(data)
    return found


def figures(passed, longest, window, k):
    """What the record says of one case."""
    return {
        "window_mean": round(float(window.mean()), 1),
        "window_most": int(window.max()),
        "passed_mean": round(float(passed.mean()), 1),
        "passed_most": int(passed.max()),
        "list_mean": round(float(longest.mean()), 1),
        "list_p99": int(np.quantile(longest, 0.99, method="higher")),
        "list_most": int(longest.max()),
        "beyond_capacity": float((longest > capacity(k)).mean()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", help="the build folder")
    parser.add_argument("--out", type=pathlib.Path,
                        default=HERE / "results/filter/rates.json")
    parser.add_argument("--only", default="", help="data sets whose name has this")
    parser.add_argument("--smoke", action="store_true", help="tiny; keeps nothing")
    options = parser.parse_args()
    library = Library(options.build)
    # Of when it began: the tree may change meanwhile.
    head = json.dumps(machine())
    cases = []
    for name, (make, nb, order, half, fine) in DATA.items():
        if options.only not in name:
            continue
        n, ks, sample = QUERIES, KS, SAMPLE
        if options.smoke:
            n, nb, ks, sample = 5, 3000, (1, 10), 200
        vectors = np.ascontiguousarray(make(np.random.default_rng(10), nb))
        x = np.ascontiguousarray(make(np.random.default_rng(11), n))
        for metric in ("L2", "inner product"):
            found = count(library, x, vectors, int(metric != "L2"), int(half), order,
                          fine, ks, sample)
            for k, (passed, longest, window) in found.items():
                assert options.smoke or passed.min() >= k
                case = {"data": name, "nb": nb, "d": vectors.shape[1],
                        "ordinary": name in ORDINARY, "metric": metric, "k": k,
                        "capacity": capacity(k), **figures(passed, longest, window, k)}
                cases.append(case)
                print(json.dumps(case), flush=True)
    if options.smoke or options.only:
        return 0
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(case)}" for case in cases)
    options.out.write_text(
        f'{{"environment": {head},\n "queries": {QUERIES}, "sample": {SAMPLE},\n'
        f' "cases": [\n{lines}\n ]}}\n',
        encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
