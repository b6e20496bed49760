"""The cases that a whole run has, for the benchmarks and for the report."""

from __future__ import annotations

_MIB = 1 << 20

#: The grid: (nb, d), n, k.
DATABASES = ((10_000, 128), (1_000_000, 128), (1_000_000, 512))
QUERIES = (1, 32, 500, 10_000, 100_000, 1_000_000)
NEIGHBOURS = (1, 10, 100, 1000)

#: Copy-back: 4 B (one distance) to 1 GiB.
SIZES = (4, 1 << 10, 16 << 10, 256 << 10, _MIB, 4 * _MIB, 16 * _MIB, 64 * _MIB,
         256 * _MIB, 1024 * _MIB)
DESTINATIONS = ("pinned", "touched", "fresh", "mapped file")

#: Few queries, and many threads with one each.
SMALL_DATABASES = ((10_000, 128), (1_000_000, 128))
BATCHES = (1, 2, 4, 8, 16, 32, 64)
THREADS = 16
SMALL_K = 100

#: (nb, d), and (n, k) of 0.1 to 2.4 GB of results; a tile is 16 MiB.
LARGE_DATABASE = (10_000, 64)
LARGE_CELLS = ((100_000, 100), (100_000, 1000), (200_000, 1000))

#: The script of Faiss' issue #4118.
CUPY_SCRIPT = {"nb": 1_000_000, "d": 512, "n": 500, "k": 1}
