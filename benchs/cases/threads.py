"""16 threads, one query each at a time, on one index: queries a second, from when
all threads are there and have searched once.

Stock Faiss needs a mutex around its search, because its resources are for one
thread; faiss_ext's index takes any number of threads, and makes one search of
those that wait for each other. In C++ and in Python, whose interpreter lock both
give up while they search. Beside them, what the computation alone takes, by stock
Faiss in C++ with all arrays on the GPU: the queries of all threads in one search,
and each by itself.
"""

from __future__ import annotations

import threading
import time

import numpy as np

from measure import memory
from measure.floors import COMPUTE
from measure.searches import Searches, database, random_vectors
from measure.timing import Contender

NAME = "threads"

#: Contender: no two queries in one search.
ONE_BY_ONE = f"{COMPUTE}, one by one"


def run(session):
    """Both databases."""
    shapes = session.shapes
    threads, k = shapes.threads, shapes.small_k
    session.expect(len(shapes.small_databases))
    for (nb, d), calls in zip(shapes.small_databases, shapes.calls):
        case = {"threads": threads, "calls": calls, "k": k, "nb": nb, "d": d}
        base = 4 * nb * d
        obstacle = session.obstacle(host_bytes=3 * base, device_bytes=6 * base)
        if obstacle:
            session.skip(NAME, case, obstacle)
            continue
        x = random_vectors(threads, d, 42)
        searches = Searches(
            session, database(nb, d), x, k, rows=range(threads))
        D = memory.touched((threads, k), "float32")
        I = memory.touched((threads, k), "int64")
        session.measure(
            NAME,
            case,
            [
                _in_cpp(searches, "C++ stock, mutex", "C++ stock", x, D, I, calls),
                _in_cpp(searches, "C++ ours", "C++ ours", x, D, I, calls),
                _on_gpu(searches, COMPUTE, [x], k, calls),
                _on_gpu(searches, ONE_BY_ONE, np.split(x, threads), k, calls),
                _in_python(searches, "stock, mutex", "stock", x, D, I, calls),
                _in_python(
                    searches, "stock, mutex again", "stock", x, D, I, calls),
                _in_python(searches, "ours", "ours", x, D, I, calls),
                _in_python(searches, "ours, no batches", "ours", x, D, I, calls,
                           batchedQueries=1),
            ],
            _floors(searches, threads, calls, k),
        )


def _floors(searches, threads, calls, k):
    """The queries of all threads at once, as often as each of them calls. The
    bytes of the results are few, and their latencies overlap."""
    compute = searches.floors(threads, k)(COMPUTE)["compute"]
    return lambda name: {"compute": compute and calls * compute}


def _on_gpu(searches, name, parts, k, calls):
    """One search after another, for each part of the queries."""
    index, native = searches.index("C++ stock"), searches.native
    rows = [
        (memory.OnGpu.of(native, part),
         memory.OnGpu(native, (len(part), k), "float32"),
         memory.OnGpu(native, (len(part), k), "int64"))
        for part in parts
    ]

    def run():
        return sum(
            index.search(*arrays, wait=True)
            for arrays in rows for _ in range(calls)
        )

    def check():
        return searches.oracle.check(*(
            np.concatenate([arrays[place].get() for arrays in rows])
            for place in (1, 2)
        ))

    def spoil():
        for _, D, I in rows:
            memory.poison(D, I)

    return Contender(name, run, None, check, spoil)


def _checked(searches, name, run, D, I):
    return Contender(
        name, run, None, lambda: searches.oracle.check(D, I),
        lambda: memory.poison(D, I),
    )


def _in_cpp(searches, name, kind, x, D, I, calls):
    index = searches.index(kind)
    locked = kind.endswith("stock")
    return _checked(
        searches,
        name,
        lambda: index.search_threads(x, D, I, calls, locked=locked),
        D,
        I,
    )


def _in_python(searches, name, kind, x, D, I, calls, **config):
    index = searches.index(kind, **config)
    mutex = threading.Lock()

    def search(row):
        one, k = slice(row, row + 1), D.shape[1]
        if kind == "stock":
            with mutex:
                index.search(x[one], k, D=D[one], I=I[one])
        else:
            index.search(x[one], k, D=D[one], I=I[one])

    def run():
        starts, ends, failures = [], [], []
        line = threading.Barrier(
            len(x), lambda: starts.append(time.perf_counter()))

        def work(row):
            try:
                search(row)
                line.wait()
                for _ in range(calls):
                    search(row)
                ends.append(time.perf_counter())
            except Exception as error:
                failures.append(error)
                line.abort()

        threads = [
            threading.Thread(target=work, args=(row,)) for row in range(len(x))
        ]
        started = []
        try:
            for thread in threads:
                thread.start()
                started.append(thread)
        except RuntimeError:
            # The others would wait for it for ever.
            line.abort()
            raise
        finally:
            for thread in started:
                thread.join()
        if failures:
            raise failures[0]
        return max(ends) - starts[0]

    return _checked(searches, name, run, D, I)
