"""The constants that faiss_ext chooses by itself (gpu/call/Tuning.h), and what else
could be chosen: the members of StagedConfig, and where one tile should end.

Most searches have many results for little computation, which these constants are
there for; the sweep of tile rows is also made on the large database, where a tile that is no multiple of the rows that Faiss computes at once
(512, or 1024 for d up to 32) costs computation.
"""

from __future__ import annotations

import faiss_ext

from measure import memory
from measure.floors import BYTES_PER_RESULT
from measure.searches import Searches, database, random_vectors

NAME = "constants"

#: Seconds for a byte of results, by where it goes, and computation besides; of
#: the first run on an H200, where the rest of plan.py's rates are from.
_BYTE_S = {"touched": 7e-11, "pinned": 3e-11, "fresh": 1.3e-10}


def run(session):
    """One sweep after another; all settings of a sweep in turns."""
    shapes = session.shapes
    sweeps = list(_sweeps(shapes))
    session.expect(len(sweeps))
    made = {}
    for shape, setting, destination, nbytes, variants in sweeps:
        nb, d, k = shape
        n = nbytes // (BYTES_PER_RESULT * k)
        case = {"setting": setting, "destination": destination,
                "n": n, "k": k, "nb": nb, "d": d}
        obstacle = _unknown(setting) or session.obstacle(
            host_bytes=4 * nbytes + 8 * nb * d,
            device_bytes=4 * nbytes + 8 * nb * d,
            seconds=6 * len(variants) * (
                nbytes * _BYTE_S[destination] + n * nb * 2e-11),
        )
        if obstacle:
            session.skip(NAME, case, obstacle)
            continue
        if shape not in made:
            most = max(
                other // (BYTES_PER_RESULT * k)
                for shape_, *_, other, _ in sweeps if shape_ == shape
            )
            made[shape] = Searches(
                session, database(nb, d), random_vectors(most, d, 62), k)
        _sweep(session, made[shape], case, variants)


def _unknown(setting):
    """Why a setting cannot be set: it is of another version."""
    config = faiss_ext.StagedConfig()
    if setting in ("tiles", "tile rows") or hasattr(config, setting):
        return None
    try:
        config.tune(setting, 0)
    except (AttributeError, RuntimeError):
        return f"StagedConfig: no {setting} in this version"
    return None


def _sweeps(shapes):
    """(shape, setting, destination, bytes of results, configurations by name)."""
    for setting, values, destinations, nbytes in shapes.sweeps:
        for destination in destinations:
            yield shapes.constants, setting, destination, nbytes, {
                f"{setting}={value}": {setting: value} if value else {}
                for value in values
            }
    for shape, nbytes, rows in shapes.tile_rows:
        for destination in ("touched", "pinned"):
            yield shape, "tile rows", destination, nbytes, {
                f"tile rows={value}": _tiles(value) if value else {}
                for value in rows
            }
    for shape, nbytes, lanes in shapes.lanes:
        yield shape, "computeLanes", "pinned", nbytes, {
            f"computeLanes={value}": {"computeLanes": value} if value else {}
            for value in lanes
        }
    for shape, n, vectors in shapes.slices:
        yield shape, "sliceVectors", "pinned", BYTES_PER_RESULT * n * shape[2], {
            f"sliceVectors={value}": {"sliceVectors": value} if value else {}
            for value in vectors
        }
    nb, d, k = shapes.constants
    for nbytes in shapes.one_tile_bytes:
        n = nbytes // (BYTES_PER_RESULT * k)
        for destination in ("touched", "pinned"):
            yield shapes.constants, "tiles", destination, nbytes, {
                f"tiles={tiles}": _tiles(-(-n // tiles))
                for tiles in shapes.one_tile_cuts
            }


def _tiles(rows):
    """Whatever the bytes, so many rows a tile."""
    return {"tileRows": rows}


def _sweep(session, searches, case, configs):
    n, k = case["n"], case["k"]
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
        least_runs=3,
    )
    for config in configs.values():
        searches.forget("ours", **config)


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
