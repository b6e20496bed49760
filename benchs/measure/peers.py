"""The same neighbours by other libraries, with arrays on the GPU throughout.

Each entry of `_PEERS` makes what its library needs and returns a function that
searches and waits, and one that fetches the results, of all queries or of the
first `rows`. A library that is not there is left out.
"""

from __future__ import annotations

import functools
import importlib.util
import sys

NAMES = ("torch", "CuPy", "cuVS")

#: Of which some trade exactness for time: where it is what is measured.
WITH_LOW_PRECISION = (*NAMES, "torch TF32", "FlashLib", "FlashLib fp16")

#: Bytes of the distance matrix that is made at once, as a user would tile it.
_MATRIX_BYTES = 4 << 30


_NEEDED = {"torch": "torch", "CuPy": "cupy", "cuVS": "cuvs", "torch TF32": "torch",
           "FlashLib": "flashlib", "FlashLib fp16": "flashlib"}


def installed():
    """Names of those that can be imported."""
    return [name for name in NAMES if may_start(name)]


def may_start(name) -> bool:
    """Whether a contender is none of these, or can be imported."""
    return name not in _NEEDED or bool(importlib.util.find_spec(_NEEDED[name]))


def available(session, base, x, k, wanted=NAMES.__contains__):
    """(name, run, results) of each peer that is wanted, installed and starts."""
    for name, make in _PEERS:
        if not wanted(name):
            continue
        try:
            run, results = make(base, x, k)
        except ImportError:
            continue
        except Exception as error:
            session.say(f"    {name} does not start: {error}")
            continue
        yield name, run, results


_kept = {}


def _stored(name, base, make):
    """What a peer keeps of a database: made once, not for each case."""
    key = name, base.shape
    if key not in _kept or _kept[key][0] is not base:
        _kept[key] = base, make()
    return _kept[key][1]


def forget():
    """Free what was kept of databases."""
    _kept.clear()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _rows(x, base):
    return max(1, min(len(x), _MATRIX_BYTES // (4 * len(base))))


def _torch(base, x, k, tf32=False):
    """|b|^2 - 2 q.b by addmm, then topk; TF32 off, as in Faiss, unless asked for."""
    import torch

    if not torch.cuda.is_available():
        raise ImportError("torch has no GPU")
    stored = _stored("torch", base, lambda: torch.from_numpy(base).cuda())
    queries = torch.from_numpy(x).cuda()
    norms = stored.square().sum(1)[None, :]
    rows, out = _rows(x, base), []

    def run():
        out.clear()
        torch.backends.cuda.matmul.allow_tf32 = tf32
        for i in range(0, len(queries), rows):
            part = queries[i : i + rows]
            scores = torch.addmm(norms, part, stored.T, alpha=-2)
            values, labels = scores.topk(k, dim=1, largest=False)
            out.append((values + part.square().sum(1)[:, None], labels))
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.cuda.synchronize()

    def results(rows=None):
        return tuple(
            torch.cat([pair[i] for pair in out])[:rows].cpu().numpy()
            for i in (0, 1)
        )

    return run, results


def _cupy(base, x, k):
    """The same with argpartition and a sort of what it finds: CuPy has no
    topk."""
    import cupy

    stored = _stored("CuPy", base, lambda: cupy.asarray(base))
    queries = cupy.asarray(x)
    norms = cupy.square(stored).sum(1)[None, :]
    rows, out = _rows(x, base) // 4 or 1, []

    def run():
        out.clear()
        for i in range(0, len(queries), rows):
            part = queries[i : i + rows]
            scores = norms - 2 * part @ stored.T
            if k == 1:
                labels = scores.argmin(axis=1)[:, None]
            else:
                found = cupy.argpartition(scores, k - 1, axis=1)[:, :k]
                values = cupy.take_along_axis(scores, found, axis=1)
                labels = cupy.take_along_axis(
                    found, cupy.argsort(values, axis=1), axis=1
                )
            values = cupy.take_along_axis(scores, labels, axis=1)
            out.append((values + cupy.square(part).sum(1)[:, None], labels))
        cupy.cuda.Device().synchronize()

    def results(rows=None):
        return tuple(
            cupy.concatenate([pair[i] for pair in out])[:rows].get()
            for i in (0, 1)
        )

    return run, results


def _cuvs(base, x, k):
    """Its brute force, squared L2."""
    import cupy
    from cuvs.neighbors import brute_force

    index = _stored("cuVS", base, lambda: brute_force.build(
        cupy.asarray(base), metric="sqeuclidean"))
    queries, out = cupy.asarray(x), []

    def run():
        out[:] = brute_force.search(index, queries, k)
        cupy.cuda.Device().synchronize()

    def results(rows=None):
        return tuple(cupy.asarray(array)[:rows].get() for array in out)

    return run, results


def _flashlib(base, x, k, half=False):
    """Its fused search, of float32 or of float16 copies."""
    import torch
    from flashlib.primitives.knn import flash_knn

    if not torch.cuda.is_available():
        raise ImportError("torch has no GPU")
    kind = torch.float16 if half else torch.float32
    stored = _stored(
        f"FlashLib {kind}", base, lambda: torch.from_numpy(base).cuda().to(kind))
    queries, out = torch.from_numpy(x).cuda(), []

    def run():
        out[:] = flash_knn(queries.to(kind), stored, k)
        torch.cuda.synchronize()

    def results(rows=None):
        return tuple(array[:rows].cpu().numpy() for array in out)

    return run, results


_PEERS = (
    ("torch", _torch), ("torch TF32", functools.partial(_torch, tf32=True)),
    ("CuPy", _cupy), ("cuVS", _cuvs),
    ("FlashLib", _flashlib), ("FlashLib fp16", functools.partial(_flashlib, half=True)),
)
