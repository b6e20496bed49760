"""16 threads, one query each at a time, on one index: queries a second.

Stock Faiss needs a mutex around its search, because its resources are for one
thread; faiss_ext's index takes any number of threads. In C++ and in Python,
whose interpreter lock both give up while they search.
"""

from __future__ import annotations

import threading

from measure import memory
from measure.searches import Searches, random_vectors
from measure.timing import Contender

NAME = "threads"


def run(session):
    """Both databases."""
    shapes = session.shapes
    threads, calls, k = shapes.threads, shapes.calls, shapes.small_k
    session.expect(len(shapes.small_databases))
    for nb, d in shapes.small_databases:
        case = {"threads": threads, "calls": calls, "k": k, "nb": nb, "d": d}
        base = 4 * nb * d
        obstacle = session.obstacle(host_bytes=3 * base, device_bytes=6 * base)
        if obstacle:
            session.skip(NAME, case, obstacle)
            continue
        x = random_vectors(threads, d, 42)
        searches = Searches(session, random_vectors(nb, d, 41), x, k)
        D = memory.touched((threads, k), "float32")
        I = memory.touched((threads, k), "int64")
        session.measure(
            NAME,
            case,
            [
                _in_cpp(searches, "C++ stock, mutex", "C++ stock", x, D, I, calls),
                _in_cpp(searches, "C++ ours", "C++ ours", x, D, I, calls),
                _in_python(searches, "stock, mutex", "stock", x, D, I, calls),
                _in_python(
                    searches, "stock, mutex again", "stock", x, D, I, calls),
                _in_python(searches, "ours", "ours", x, D, I, calls),
            ],
        )


def _checked(searches, name, run, D, I):
    def check():
        memory.poison(D, I)
        run()
        return searches.oracle.check(D, I)

    return Contender(name, run, None, check)


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


def _in_python(searches, name, kind, x, D, I, calls):
    index = searches.index(kind)
    mutex = threading.Lock()

    def work(row, failures):
        one, k = slice(row, row + 1), D.shape[1]
        try:
            for _ in range(calls):
                if kind == "stock":
                    with mutex:
                        index.search(x[one], k, D=D[one], I=I[one])
                else:
                    index.search(x[one], k, D=D[one], I=I[one])
        except Exception as error:
            failures.append(error)

    def run():
        failures = []
        threads = [
            threading.Thread(target=work, args=(row, failures))
            for row in range(len(x))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    return _checked(searches, name, run, D, I)
