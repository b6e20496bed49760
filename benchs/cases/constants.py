"""The constants that faiss_ext chooses by itself (gpu/Tuning.h), and what else
could be chosen: the members of StagedConfig, and where one tile should end.

The searches are bound by copy-back (small database, many results), for which
these constants are there.
"""

from __future__ import annotations

import faiss_ext

from measure import memory
from measure.floors import BYTES_PER_RESULT
from measure.searches import Searches, random_vectors

NAME = "constants"


def run(session):
    """One sweep after another; all settings of a sweep in turns."""
    shapes = session.shapes
    nb, d, k = shapes.constants
    sweeps = list(_sweeps(shapes))
    session.expect(len(sweeps))
    most = max(nbytes for _, _, nbytes, _ in sweeps) // (BYTES_PER_RESULT * k)
    searches = Searches(session, random_vectors(nb, d, 61),
                        random_vectors(most, d, 62), k)
    for setting, destination, nbytes, variants in sweeps:
        n = nbytes // (BYTES_PER_RESULT * k)
        case = {"setting": setting, "destination": destination,
                "n": n, "k": k, "nb": nb, "d": d}
        obstacle = _unknown(setting) or session.obstacle(
            host_bytes=4 * nbytes,
            device_bytes=4 * nbytes,
            # Fresh pages at 2 GB/s, others at 10.
            seconds=7 * len(variants) * nbytes
            / (2e9 if destination == "fresh" else 10e9),
        )
        if obstacle:
            session.skip(NAME, case, obstacle)
        else:
            _sweep(session, searches, case, variants)


def _unknown(setting):
    """Why a setting cannot be set: it is of another version."""
    if setting == "tiles" or hasattr(faiss_ext.StagedConfig(), setting):
        return None
    return f"StagedConfig: no {setting} in this version"


def _sweeps(shapes):
    """(setting, destination, bytes of results, variants by name)."""
    for setting, values, destinations, nbytes in shapes.sweeps:
        for destination in destinations:
            yield setting, destination, nbytes, {
                f"{setting}={value}": {setting: value} if value else {}
                for value in values
            }
    for nbytes in shapes.one_tile_bytes:
        for destination in ("touched", "pinned"):
            yield "tiles", destination, nbytes, {
                f"tiles={tiles}": {"tiles": tiles}
                for tiles in shapes.one_tile_cuts
            }


def _sweep(session, searches, case, variants):
    n, k = case["n"], case["k"]
    configs = {
        name: _cut(n, config["tiles"]) if "tiles" in config else config
        for name, config in variants.items()
    }
    outputs = _outputs(session.native, case["destination"], (n, k))
    session.measure(
        NAME,
        case,
        [
            searches.given(
                name, "ours", searches.queries[:n], outputs, **config
            )
            for name, config in configs.items()
        ],
        searches.floors(n, k),
    )
    for config in configs.values():
        if config:
            searches.forget(**config)


def _outputs(native, destination, shape):
    """What makes the outputs before each run: new ones where they must be
    fresh."""
    if destination == "fresh":
        return lambda: (memory.fresh(shape, "float32"),
                        memory.fresh(shape, "int64"))
    make = memory.touched if destination == "touched" else (
        lambda shape, dtype: memory.pinned(native, shape, dtype))
    arrays = make(shape, "float32"), make(shape, "int64")
    return lambda: arrays


def _cut(n, tiles):
    """Whatever the size, so many tiles."""
    return {"tileRows": -(-n // tiles), "oneTileBytes": 1 << 30,
            "tileBytes": 1 << 30}
