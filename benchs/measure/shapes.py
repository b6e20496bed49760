"""The cases of a run: all of them, and the smallest that take every path. Also
what the report has rows for."""

from __future__ import annotations

import dataclasses

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Databases are (nb, d); the defaults are those of a whole run."""

    #: The grid.
    databases: tuple = ((10_000, 128), (1_000_000, 128), (1_000_000, 512))
    queries: tuple = (1, 32, 500, 10_000, 100_000, 1_000_000)
    neighbours: tuple = (1, 10, 100, 1000)
    #: (n, k, nb, d) that the bar asks for by name: measured first.
    bar_cells: tuple = (
        (1, 100, 1_000_000, 128),
        (10_000, 100, 10_000, 128), (100_000, 100, 10_000, 128),
        (1_000_000, 100, 10_000, 128),
        (10_000, 1000, 1_000_000, 128), (100_000, 1000, 1_000_000, 128),
    )

    #: Copy-back: bytes, from one distance on.
    sizes: tuple = (4, _KIB, 16 * _KIB, 256 * _KIB, _MIB, 4 * _MIB, 16 * _MIB,
                    64 * _MIB, 256 * _MIB, _GIB)
    destinations: tuple = ("pinned", "touched", "fresh", "mapped file")

    #: Few queries, and many threads with one each.
    small_databases: tuple = ((10_000, 128), (1_000_000, 128))
    batches: tuple = (1, 2, 4, 8, 16, 32, 64)
    small_k: int = 100
    threads: int = 16
    #: Of each thread, by database: one on a million vectors takes 4 ms.
    calls: tuple = (100, 5)

    #: (n, k) of 0.1 to 1.2 GB of results; a tile is 16 MiB.
    large_database: tuple = (10_000, 64)
    large_cells: tuple = ((100_000, 100), (20_000, 1000), (100_000, 1000))

    #: The script of Faiss' issue #4118: nb, d, n, k.
    cupy_script: tuple = (1_000_000, 512, 500, 1)

    #: nb, d, k; bytes of GPU memory left free for results three times as large
    #: (None: all that is there).
    beyond_memory: tuple = (10_000, 64, 1000)
    beyond_left: int | None = _GIB

    #: The exact engine, all arrays on the GPU: every number of queries among each
    #: database, and then (n, nb, d); k as in the grid.
    engine_databases: tuple = ((1_000_000, 128), (10_000, 128), (1_000_000, 512),
                               (1_000_000, 1024), (10_000_000, 96))
    engine_queries: tuple = (1, 32, 500, 10_000)
    engine_more: tuple = ((100_000, 1_000_000, 128),)
    #: Of these, the numbers of queries that the bar names, by database.
    engine_bar: tuple = (
        ((10_000, 128), (1, 10_000)),
        ((1_000_000, 128), (1, 32, 500, 10_000, 100_000)),
        ((1_000_000, 512), (1, 10_000)), ((10_000_000, 96), (10_000,)),
        ((1_000_000, 1024), (10_000,)),
    )
    #: Where it falls back: vectors of each kind, of 128 dimensions, n, and k.
    engine_worst: tuple = (1_000_000, (32, 10_000), (10, 1000))
    #: The first search after an add: databases, n, and k.
    engine_first: tuple = (((10_000, 128), (1_000_000, 128)), (1, 10_000), 10)

    #: Exactness: vectors and queries of each data set, and k.
    exactness: tuple = (100_000, 1000)
    exactness_k: tuple = (1, 10, 100)

    #: nb, d, k; then sweeps: setting, values (0 is what the library chooses),
    #: destinations, bytes of results.
    constants: tuple = (10_000, 128, 1000)
    sweeps: tuple = (
        ("tileBytes", (0, _MIB, 4 * _MIB, 8 * _MIB, 16 * _MIB, 32 * _MIB,
                       64 * _MIB), ("touched", "pinned"), 240 * _MIB),
        ("pipelineDepth", (0, 1, 2, 3, 4, 6), ("touched", "pinned"),
         240 * _MIB),
        ("pinnedBytes", (0, 64 * _MIB, 128 * _MIB, 512 * _MIB),
         ("touched",), 240 * _MIB),
        ("copyThreads", (0, 1, 2, 4, 8, 16), ("touched", "fresh"),
         240 * _MIB),
        ("copyChunkBytes", (0, 64 * _KIB, 256 * _KIB, _MIB, 4 * _MIB),
         ("touched", "fresh"), 4 * _MIB),
        ("copyChunkBytes", (0, 64 * _KIB, 256 * _KIB, _MIB, 4 * _MIB),
         ("touched",), 16 * _MIB),
        ("endTileBytes", (0, 64 * _KIB, 256 * _KIB, _MIB), ("touched", "pinned"),
         12 * _MIB),
        # 1, 10 and 100 queries.
        *(("mappedBytes", (0, 1, _GIB), ("touched", "pinned"), 12_000 * n)
          for n in (1, 10, 100)),
    )
    #: (nb, d, k), bytes of results, rows of a tile: multiples of the rows that
    #: Faiss computes at once, what lies between, and one tile for all. All
    #: divide the number of queries, 10,240: tiles are made equal.
    tile_rows: tuple = tuple(
        ((nb, 128, 1000), 12_000 * 10_240,
         (0, 512, 640, 1024, 1280, 2048, 2560, 5120, 10_240))
        for nb in (10_000, 1_000_000)
    )
    #: (nb, d, k), bytes of results, and on how many lanes.
    lanes: tuple = tuple(
        ((nb, 128, k), 12 * k * 10_000, (0, 1, 2, 3, 4, 6, 8))
        for nb in (10_000, 100_000) for k in (1, 100, 1000)
    )
    #: (nb, d, k), queries, and the vectors, at least, of a slice.
    slices: tuple = tuple(
        ((nb, 128, k), n, (0, nb, nb // 2, nb // 4, nb // 8))
        for nb in (50_000, 100_000, 1_000_000)
        for n, k in ((1, 1), (1, 100), (500, 10), (500, 100))
    )
    #: Bytes of results around the limit of one tile, and into how many tiles.
    one_tile_bytes: tuple = (_MIB, 4 * _MIB, 8 * _MIB, 16 * _MIB, 32 * _MIB,
                             64 * _MIB)
    one_tile_cuts: tuple = (1, 2, 4, 8)

    def engine_cells(self) -> list[tuple]:
        """(n, k, nb, d) of cases/engine.py, database by database."""
        return [
            (n, k, nb, d)
            for nb, d in self.engine_databases
            for n in (*self.engine_queries, *(
                more for more, *where in self.engine_more if where == [nb, d]))
            for k in self.neighbours
        ]

    def engine_bar_cells(self) -> list[tuple]:
        """Those of them that the bar names."""
        return [(n, k, *database) for database, numbers in self.engine_bar
                for n in numbers for k in self.neighbours]


WHOLE = Shapes()

#: Tiles are small here because they are asked for (`constants`) and because the
#: results are few; what is left out is sizes alone.
SMOKE = Shapes(
    databases=((300, 16),),
    queries=(1, 40),
    neighbours=(1, 10),
    sizes=(4, _KIB, _MIB),
    small_databases=((200, 16),),
    batches=(1, 3),
    small_k=10,
    calls=(2,),
    large_database=(60, 8),
    large_cells=((2000, 50),),
    cupy_script=(400, 32, 20, 1),
    beyond_memory=(60, 8, 50),
    beyond_left=None,
    engine_databases=((300, 16), (90, 8)),
    engine_queries=(1, 40),
    engine_more=((60, 300, 16),),
    engine_worst=(400, (3, 20), (10,)),
    engine_first=(((200, 16),), (1, 20), 3),
    exactness=(2000, 10),
    exactness_k=(1, 10),
    constants=(60, 8, 10),
    sweeps=(
        ("tileBytes", (0, 4 * _KIB), ("touched", "pinned"), 60 * _KIB),
        ("pipelineDepth", (0, 1), ("touched",), 60 * _KIB),
        ("pinnedBytes", (0, _MIB), ("touched",), 60 * _KIB),
        ("copyThreads", (0, 2), ("touched", "fresh"), 60 * _KIB),
        ("copyChunkBytes", (0, 4 * _KIB), ("touched",), 60 * _KIB),
        ("mappedBytes", (0, 1, _GIB), ("pinned",), 1200),
        ("endTileBytes", (0, 4 * _KIB), ("pinned",), 60 * _KIB),
    ),
    tile_rows=(((60, 8, 10), 60 * _KIB, (0, 128)),),
    lanes=(((60, 8, 10), 180 * _KIB, (0, 2)),),
    slices=(((60, 8, 10), 3, (0, 20)),),
    one_tile_bytes=(60 * _KIB,),
    one_tile_cuts=(1, 4),
)
