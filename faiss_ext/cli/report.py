"""What a job did, and how long each part of it took."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import faiss

import faiss_ext

from .files.result_files import result_paths
from .files.vector_files import VectorFile
from .flat_index import FlatIndex

__all__ = ["Stopwatch", "print_report"]

_Item = TypeVar("_Item")
_METRICS = {
    "l2": "squared L2 distance",
    "ip": "inner product",
    "cosine": "cosine similarity",
}


class Stopwatch:
    """Adds up the seconds spent in each part of a job.

    Parameters
    ----------
    parts : str
        The names of the parts.

    Attributes
    ----------
    seconds : dict of str to float
        By part, in the order given.
    """

    def __init__(self, *parts: str) -> None:
        self._start = time.perf_counter()
        self.seconds = dict.fromkeys(parts, 0.0)

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count the block as a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start

    def each(self, part: str, items: Iterable[_Item]) -> Iterator[_Item]:
        """Pass the items on; what it takes to get them counts as a part."""
        iterator = iter(items)
        while True:
            with self(part):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def total(self) -> float:
        """Seconds since the stopwatch was made."""
        return time.perf_counter() - self._start


def print_report(
    watch: Stopwatch,
    flat: FlatIndex,
    base: VectorFile,
    query: VectorFile,
    args: argparse.Namespace,
) -> None:
    """Print the closing report of `knn` on standard output."""
    print(
        f"{query.n} queries, {base.n} vectors of {base.d} dimensions, "
        f"k = {args.k}, "
        f"{'Euclidean distance' if args.euclidean else _METRICS[args.metric]}"
    )
    _line("device", f"{flat.device} ({flat.why})")
    _line("Faiss", f"{faiss.__version__}, faiss_ext {faiss_ext.__version__}")
    for part, seconds in watch.seconds.items():
        speed = ""
        if part == "searching" and seconds > 0:
            speed = f", {query.n / seconds:.0f} queries a second"
        _line(part, f"{seconds:.3f} s{speed}")
    _line("in all", f"{watch.total():.3f} s")
    _line("transfers", _transfers(flat))
    _line("result", " and ".join(result_paths(args.out)))


def _line(name: str, value: str) -> None:
    print(f"  {name:<10} {value}")


def _transfers(flat: FlatIndex) -> str:
    if not flat.on_gpu:
        return "none, everything stayed in the host's memory"
    if not hasattr(flat.index, "transfer_stats"):
        return "not counted by Faiss' own index"
    stats = flat.index.transfer_stats()
    return (
        f"{_size(stats['bytes_to_device'])} to the device and "
        f"{_size(stats['bytes_to_host'])} back, while searching"
    )


def _size(nbytes: float) -> str:
    """A number of bytes, for people."""
    for unit in ("bytes", "kB", "MB", "GB"):  # noqa: B007
        if nbytes < 1000:
            break
        nbytes /= 1000
    else:
        unit = "TB"
    return f"{nbytes:.0f} bytes" if unit == "bytes" else f"{nbytes:.3g} {unit}"
