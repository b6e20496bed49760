"""Times searches of stock Faiss and of ours, on the same arrays.

All variants of a case take turns, so that whatever else changes meanwhile
changes for all of them. A search counts from the call in Python to the moment
when its results are complete.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import faiss
import numpy as np

import faiss_ext

from .._native import swigfaiss_ext as native
from ..errors import UserError, faiss_errors
from .cases import Case
from .table import LABELS
from .trace import middle

__all__ = ["Database", "link_speed", "measure", "measure_all"]

# Stock Faiss can be split from outside only: by what becomes faster when arrays
# lie on the GPU already.
_STOCK_SPLIT = ("stock, results up to the host", "stock, all on the GPU")

_WARM_UP = 2
_FEWEST = 3
_LINK_BYTES = 32 << 20
_LINK_REPETITIONS = 10

# Of labels that may be others: of neighbours whose distances are the same up to
# rounding, some are among the k nearest of one search and not of another.
_TIES = 0.01


class Database(NamedTuple):
    """The same vectors in both indexes, on the same resources.

    Attributes
    ----------
    stock : faiss.GpuIndexFlat
        Faiss' own.
    ours : faiss_ext.GpuIndexFlat
    resources : faiss.StandardGpuResources
    device : int
    """

    stock: Any
    ours: Any
    resources: Any
    device: int

    @classmethod
    def make(cls, case: Case, device: int) -> Database:
        """Random vectors of the case's shape. Raises UserError."""
        vectors = _random(case.nb, case.d, seed=1)
        metric = {
            "l2": faiss.METRIC_L2, "ip": faiss.METRIC_INNER_PRODUCT
        }[case.metric]
        config = faiss.GpuIndexFlatConfig()
        config.device = device
        config.useFloat16 = case.storage == "float16"
        with faiss_errors(f"GPU {device} cannot hold the vectors twice"):
            resources = faiss.StandardGpuResources()
            made = []
            for kind in (faiss.GpuIndexFlat, faiss_ext.GpuIndexFlat):
                made.append(kind(resources, case.d, metric, config))
                made[-1].add(vectors)
        stock, ours = made
        return cls(stock, ours, resources, device)


def link_speed(database: Database) -> dict[str, float] | None:
    """Bytes a second between pinned memory and the GPU, each way; None if
    there is no memory to measure it with."""
    try:
        speed = native.measure_link_speed_c(
            database.resources, database.device, _LINK_BYTES, _LINK_REPETITIONS
        )
    except (MemoryError, RuntimeError):
        return None
    return {"to_device": speed.toDevice, "to_host": speed.toHost}


def measure(
    database: Database,
    case: Case,
    repetitions: int,
    seconds: float,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Time the searches of one case.

    Parameters
    ----------
    database : Database
    case : Case
        Of this database.
    repetitions : int
        How often each variant is timed, at most.
    seconds : float
        No repetition begins after that time, beyond the third.
    advance : callable
        Is told of each repetition.

    Returns
    -------
    dict
        The case in the document (see `faiss_ext.profiling`).

    Raises
    ------
    UserError
        Faiss refuses the search, memory runs out, or the two do not find the
        same neighbours.
    """
    with faiss_errors(f"cannot search with {case}"):
        searches = _Searches(database, case)
        searches.compare()
        timed = searches.timed()
        times: dict[str, list[float]] = {name: [] for name in timed}
        profiles: dict[str, list[dict[str, Any]]] = {"given": [], "pooled": []}
        begin = time.perf_counter()
        for repetition in range(-_WARM_UP, repetitions):
            late = time.perf_counter() - begin > seconds
            if repetition >= _FEWEST and late:
                break
            found = {name: searches.profile(name) for name in profiles}
            for name, search in timed.items():
                took = _seconds(search)
                if repetition >= 0:
                    times[name].append(took)
            if repetition >= 0:
                for name, profile in found.items():
                    profiles[name].append(_as_dict(profile))
                advance(1)
    for recorded in profiles.values():
        # A search of many tiles has thousands.
        kept = middle(recorded)
        for profile in recorded:
            if profile is not kept:
                profile["spans"] = []
                profile["compute_spans"] = []
    return {
        **case._asdict(),
        "variants": [
            {"name": name, "seconds": times[name]} for name in LABELS
        ],
        "stock": _by_difference(times),
        "profiles": profiles,
    }


class _Searches:
    """The searches of one case, ready to be called."""

    def __init__(self, database: Database, case: Case) -> None:
        self._database = database
        self._k = case.k
        self._x = _random(case.n, case.d, seed=2)
        shape = (case.n, case.k)
        # Touched, as arrays that are used again are.
        self._given = np.zeros(shape, "float32"), np.zeros(shape, "int64")
        self._on_gpu = [
            _on_gpu(database, array.shape, array.dtype)
            for array in (self._x, *self._given)
        ]
        _upload(database, self._x, self._on_gpu[0])

    def timed(self) -> dict[str, Callable[[], Any]]:
        """By variant; the last ones split stock Faiss."""
        ours, stock = self._database.ours, self._database.stock
        d, i = self._given
        x_gpu, d_gpu, i_gpu = self._on_gpu
        return {
            "stock": lambda: stock.search(self._x, self._k, D=d, I=i),
            "new": lambda: stock.search(self._x, self._k),
            "given": lambda: ours.search(self._x, self._k, D=d, I=i),
            "pooled": lambda: ours.search(self._x, self._k),
            "device": self._complete(
                lambda: ours.search(x_gpu, self._k, D=d_gpu, I=i_gpu)
            ),
            _STOCK_SPLIT[0]: self._complete(
                lambda: self._stock_search(_address(x_gpu), _address(d),
                                           _address(i))
            ),
            _STOCK_SPLIT[1]: self._complete(
                lambda: self._stock_search(*map(_address, self._on_gpu))
            ),
        }

    def profile(self, name: str) -> Any:
        """A recorded search of ours."""
        d, i = self._given if name == "given" else (None, None)
        return self._database.ours.profile_search(self._x, self._k, D=d, I=i)[2]

    def compare(self) -> None:
        """Refuse to time searches that do not find the same."""
        d, i = self._given
        expected = self._database.stock.search(self._x, self._k)
        found = {}
        for name in LABELS:
            d.fill(np.nan)
            i.fill(-2)
            result = self.timed()[name]()
            if name == "device":
                result = [a.copy_to_host() for a in self._on_gpu[1:]]
            found[name] = [a.copy() for a in result]
        for name, (distances, labels) in found.items():
            close = _close(distances, expected[0])
            others = _share_of_others((distances, labels), expected)
            if not close.all() or others > _TIES:
                raise UserError(
                    f"{LABELS[name]}: {(~close).mean():.2%} of the distances "
                    f"and {others:.2%} of the labels are not those of "
                    f"stock Faiss, with {self._x.shape[0]} queries and k = "
                    f"{self._k}; nothing was timed"
                )

    def _stock_search(self, x: int, d: int, i: int) -> None:
        """Stock Faiss on addresses, which its Python methods do not take."""
        self._database.stock.search_c(
            self._x.shape[0],
            faiss.cast_integer_to_float_ptr(x),
            self._k,
            faiss.cast_integer_to_float_ptr(d),
            faiss.cast_integer_to_idx_t_ptr(i),
            None,
        )

    def _complete(self, search: Callable[[], Any]) -> Callable[[], Any]:
        """`search`, and the wait for its results."""
        stream = native.resources_stream_c(
            self._database.resources.getResources(), self._database.device
        )

        def searched() -> Any:
            result = search()
            native.wait_for_work_c(stream, self._database.device)
            return result

        return searched


def _by_difference(times: dict[str, list[float]]) -> dict[str, float]:
    """What the medians of stock Faiss differ by; adds up to that of all."""
    whole, up_to_host, on_gpu = (
        float(np.median(times[name])) for name in ("stock", *_STOCK_SPLIT)
    )
    return {
        "upload": whole - up_to_host,
        "compute": on_gpu,
        "copy-back": up_to_host - on_gpu,
    }


def _as_dict(profile: Any) -> dict[str, Any]:
    return {
        "seconds": profile.seconds,
        "clock_error": profile.clock_error,
        "tiles": profile.tiles,
        "plan": profile.plan,
        "spans": [span._asdict() for span in profile.spans],
        "caller": profile.caller(),
        "busy": profile.busy(),
        "moved": profile.moved(),
        "compute_spans": [span._asdict() for span in profile.compute_spans],
        "compute_stages": [
            stage._asdict() for stage in profile.compute_stages
        ],
        "compute_plan": profile.compute_plan,
        "paths": profile.paths,
        "floor": profile.floor,
        "peaks": profile.peaks,
    }


def _seconds(search: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    search()
    return time.perf_counter() - begin


def _random(n: int, d: int, seed: int) -> np.ndarray:
    """Uniform in [0, 1)."""
    return np.random.default_rng(seed).random((n, d), dtype="float32")


def _on_gpu(database: Database, shape: tuple[Any, ...], dtype: Any) -> Any:
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    buffer = native.make_buffer_c(
        database.resources.getResources(), database.device, nbytes
    )
    return faiss_ext.DeviceArray(buffer, shape, dtype)


def _upload(database: Database, x: np.ndarray, to: Any) -> None:
    """Put `x` into GPU memory, by way of an index that holds it."""
    config = faiss.GpuIndexFlatConfig()
    config.device = database.device
    held = faiss_ext.GpuIndexFlat(
        database.resources, x.shape[1], faiss.METRIC_L2, config
    )
    held.add(x)
    held.reconstruct_n(0, len(x), to)


def _address(array: Any) -> int:
    interface = getattr(
        array, "__cuda_array_interface__", None
    ) or array.__array_interface__
    address: int = interface["data"][0]
    return address


def measure_all(
    cases: list[Case],
    device: int,
    repetitions: int,
    seconds: float,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """The document of these cases (see `faiss_ext.profiling`). `advance` is told
    how many repetitions of all are done, or will not be."""
    document: dict[str, Any] = {
        "environment": _environment(device), "link": None, "cases": []
    }
    database: Any = None
    database_of = None
    for case in cases:
        if database_of != case[:4]:
            # The memory of the last one first.
            database = None
            database = Database.make(case, device)
            database_of = case[:4]
            document["link"] = document["link"] or link_speed(database)
        found = measure(database, case, repetitions, seconds, advance)
        document["cases"].append(found)
        # Those for which there was no time.
        advance(repetitions - len(found["variants"][0]["seconds"]))
    return document


def _environment(device: int) -> dict[str, str]:
    return {
        "host": platform.node(),
        "gpu": native.device_name_c(device),
        "driver": _version(native.driver_version_c()),
        "cuda": _version(native.runtime_version_c()),
        "faiss": faiss.__version__,
        "faiss_options": faiss.get_compile_options().strip(),
        "faiss_ext": faiss_ext.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "date": time.strftime("%Y-%m-%d %H:%M %z"),
        "arguments": " ".join(sys.argv[1:]),
    }


def _version(number: int) -> str:
    """CUDA's number of a version: 12040 is 12.4."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _close(distances: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Which are the same up to rounding."""
    return np.asarray(np.isclose(distances, expected, rtol=1e-3, atol=1e-3))


def _share_of_others(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]
                     ) -> float:
    """Of labels [n, k] those that the same row of `expected` has not at their
    distance; both are distances and labels. Neighbours whose distances are close may
    change places: the exact engine orders them by their distances, Faiss' kernels
    by these plus their own rounding."""
    rows = (found[1] != expected[1]).any(axis=1)
    if not rows.any():
        return 0.0
    distances, labels = (array[rows] for array in found)
    # One number for each row and label, from -1 on.
    row = np.arange(len(labels))[:, None] * (max(labels.max(), expected[1].max()) + 2)
    known = (row + expected[1][rows]).ravel()
    order = np.argsort(known, kind="stable")
    wanted = (row + labels).ravel()
    place = order[np.minimum(
        np.searchsorted(known, wanted, sorter=order), known.size - 1)]
    same = (known[place] == wanted) & _close(
        distances.ravel(), expected[0][rows].ravel()[place])
    # Each of them answers for one label; only that of none (-1) comes again.
    answers = place[same & (labels.ravel() >= 0)]
    repeated = answers.size - np.unique(answers).size
    return float(((~same).sum() + repeated) / found[1].size)
