#!/usr/bin/env python3
"""Write files of the shape of SIFT1M, for the benchmark scripts of Faiss.

    benchs/synthetic_sift.py FOLDER [--base N] [--query N] [--learn N] [--d D]

FOLDER gets sift_base.fvecs, sift_query.fvecs, sift_learn.fvecs and
sift_groundtruth.ivecs (the 100 nearest vectors of the base for each query, by
Faiss on the CPU), as the loader of Faiss' benchs/datasets.py expects them in a
folder named sift1M. Without arguments they are as large as SIFT1M.

The vectors are made up: clusters, with whole numbers from 0 to 218 as
components, like SIFT descriptors; so every distance is exact in float32. The
same arguments give the same files.
"""

from __future__ import annotations

import argparse
import pathlib

import faiss
import numpy as np

NEIGHBOURS = 100
HIGHEST = 218
CLUSTERS = 1000
ROWS_AT_ONCE = 1 << 18


def vectors(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """n vectors around the same cluster centres: [n, d] float32."""
    centres = np.random.default_rng(d).integers(0, HIGHEST, (CLUSTERS, d))
    made = np.empty((n, d), "float32")
    for i in range(0, n, ROWS_AT_ONCE):
        part = made[i : i + ROWS_AT_ONCE]
        part[:] = centres[rng.integers(0, CLUSTERS, len(part))]
        part += 30 * rng.standard_normal(part.shape, dtype="float32")
    return np.clip(np.rint(made, out=made), 0, HIGHEST, out=made)


def write_vecs(path: pathlib.Path, values: np.ndarray) -> None:
    """Rows of 4-byte values, each after its length."""
    rows = np.empty((len(values), 1 + values.shape[1]), "int32")
    rows[:, 0] = values.shape[1]
    rows[:, 1:] = values.view("int32")
    rows.tofile(path)


def main() -> None:
    """Write the four files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path)
    for name, default in (
        ("base", 1_000_000), ("query", 10_000), ("learn", 100_000), ("d", 128)
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if options.base < NEIGHBOURS or min(options.query, options.learn, options.d) < 1:
        parser.error(
            f"--base must be {NEIGHBOURS} or more, the others 1 or more"
        )
    options.folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    made = {
        name: vectors(rng, getattr(options, name), options.d)
        for name in ("base", "query", "learn")
    }
    index = faiss.IndexFlatL2(options.d)
    index.add(made["base"])
    _, labels = index.search(made["query"], NEIGHBOURS)
    for name, values in made.items():
        write_vecs(options.folder / f"sift_{name}.fvecs", values)
    write_vecs(
        options.folder / "sift_groundtruth.ivecs", labels.astype("int32")
    )


if __name__ == "__main__":
    main()
