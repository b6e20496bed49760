"""The constants that faiss_ext chooses by itself, and what else could be chosen:
rows of a tile, tiles under way, pinned memory, and where one tile should end.

The case is bound by copy-back (small database, many results), for which these
constants are there.
"""

from __future__ import annotations

import faiss_ext

from measure import memory
from measure.floors import BYTES_PER_RESULT
from measure.searches import Searches, random_vectors

NAME = "constants"

NB, D, K = 10_000, 64, 100
_MIB = 1 << 20

#: Each list begins with 0, what the library chooses.
TILE_BYTES = (0, _MIB, 4 * _MIB, 8 * _MIB, 16 * _MIB, 32 * _MIB, 64 * _MIB)
SETTINGS = {
    "pipelineDepth": (0, 2, 3, 4, 6),
    "pinnedBytes": (0, 64 * _MIB, 128 * _MIB, 512 * _MIB),
    "copyThreads": (0, 1, 2, 4, 8, 16),
}
#: Bytes of results around the limit of one tile, and into how many tiles.
ONE_TILE_BYTES = (_MIB, 2 * _MIB, 4 * _MIB, 8 * _MIB, 16 * _MIB, 32 * _MIB)
ONE_TILE_CUTS = (1, 2, 4, 8)


def run(session):
    """One sweep after another; all settings of a sweep in turns."""
    nb, d, k, n = (60, 8, 10, 500) if session.smoke else (NB, D, K, 200_000)
    case = {"nb": nb, "d": d, "k": k}
    results = BYTES_PER_RESULT * n * k
    obstacle = session.obstacle(host_bytes=4 * results, device_bytes=4 * results)
    if obstacle:
        session.skip(NAME, case, obstacle)
        return
    x = random_vectors(n, d, 62)
    searches = Searches(session, random_vectors(nb, d, 61), x, k)
    tiles = (0, 64, 100) if session.smoke else tuple(
        size // (BYTES_PER_RESULT * k) for size in TILE_BYTES
    )
    session.expect(2 * (1 + len(SETTINGS)) + len(ONE_TILE_BYTES))
    _sweep(session, searches, x, k, "tileRows", tiles)
    for setting, values in SETTINGS.items():
        if hasattr(faiss_ext.StagedConfig(), setting):
            _sweep(session, searches, x, k, setting,
                   values[:2] if session.smoke else values)
        else:
            session.skip(NAME, {**case, "setting": setting},
                         "this version has no such setting")
    for size in (12_000,) if session.smoke else ONE_TILE_BYTES:
        _one_tile(session, searches, x, k, size)


def _sweep(session, searches, x, k, setting, values):
    n, (nb, d) = len(x), searches.base.shape
    outputs = {
        "touched": (memory.touched((n, k), "float32"),
                    memory.touched((n, k), "int64")),
        "pinned": (memory.pinned(session.native, (n, k), "float32"),
                   memory.pinned(session.native, (n, k), "int64")),
    }
    for destination, arrays in outputs.items():
        session.measure(
            NAME,
            {"setting": setting, "destination": destination,
             "n": n, "k": k, "nb": nb, "d": d},
            [
                searches.given(
                    f"{setting}={value}", "ours", x, lambda a=arrays: a,
                    **({setting: value} if value else {}),
                )
                for value in values
            ],
            searches.floors(n, k),
        )
    for value in values:
        if value:
            searches.forget(**{setting: value})


def _one_tile(session, searches, x, k, size):
    """Results of `size` bytes in one tile and in several."""
    nb, d = searches.base.shape
    n = max(size // (BYTES_PER_RESULT * k), 8)
    arrays = (memory.touched((n, k), "float32"), memory.touched((n, k), "int64"))
    session.measure(
        NAME,
        {"setting": "tiles", "destination": "touched",
         "n": n, "k": k, "nb": nb, "d": d},
        [
            searches.given(
                f"tiles={cuts}", "ours", x[:n], lambda: arrays,
                tileRows=-(-n // cuts),
            )
            for cuts in ONE_TILE_CUTS
        ],
        searches.floors(n, k),
    )
    for cuts in ONE_TILE_CUTS:
        searches.forget(tileRows=-(-n // cuts))
