"""Made-up vectors of the kinds on which searches in low precision go wrong, and of
those that users have. The same on every machine."""

from __future__ import annotations

import numpy as np


def _uniform(source, n, d):
    return source.random((n, d), dtype="float32")


def _offset(source, n, d):
    """Around 100, where |x|^2 - 2 x.y + |y|^2 cancels."""
    return 100 + source.standard_normal((n, d), dtype="float32")


def _unit(source, n, d):
    """Of norm 1, as cosine similarity wants them."""
    rows = source.standard_normal((n, d), dtype="float32")
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _clustered(source, n, d):
    """100 tight clusters, far apart."""
    centres = 10 * np.random.default_rng(99).standard_normal((100, d), dtype="float32")
    spread = 0.01 * source.standard_normal((n, d), dtype="float32")
    return centres[source.integers(0, len(centres), n)] + spread


def _integers(source, n, d):
    """Whole numbers from 0 to 255, most of them small, as SIFT's."""
    return np.minimum(source.exponential(30, (n, d)), 255).astype("uint8").astype("float32")


def _embeddings(source, n, d):
    """A few directions hold most of what differs, around a common mean."""
    mixing = np.random.default_rng(98).standard_normal((32, d), dtype="float32")
    rows = source.standard_normal((n, 32), dtype="float32") @ mixing
    rows += 0.3 * source.standard_normal((n, d), dtype="float32") + 2
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _near_duplicates(source, n, d):
    """1,000 vectors again and again, each time a millionth apart."""
    kinds = np.random.default_rng(97).standard_normal((1000, d), dtype="float32")
    apart = 1e-6 * source.standard_normal((n, d), dtype="float32")
    return kinds[source.integers(0, len(kinds), n)] + apart


def _one_vector(source, n, d):
    """All the same."""
    return np.repeat(source.standard_normal((1, d), dtype="float32"), n, axis=0)


def _sorted_clusters(source, n, d):
    """1,000 clusters, one after the other."""
    centres = np.random.default_rng(96).standard_normal((1000, d), dtype="float32")
    near = 0.1 * source.standard_normal((n, d), dtype="float32")
    return centres[np.sort(source.integers(0, len(centres), n))] + near


def _two_kinds(source, n, d):
    """Of two kinds, far apart, by turns."""
    rows = source.standard_normal((n, d), dtype="float32")
    rows[::2] += 20
    return rows


#: Name: how they are made, and of how many dimensions.
DATASETS = {
    "uniform": (_uniform, 128),
    "around 100": (_offset, 128),
    "unit norm": (_unit, 128),
    "clusters": (_clustered, 128),
    "whole numbers": (_integers, 128),
    "embeddings": (_embeddings, 768),
    "near duplicates": (_near_duplicates, 128),
}

#: The same, of data that are hard to filter.
HARD = {
    "all equal": (_one_vector, 128),
    "near duplicates": (_near_duplicates, 128),
    "sorted by cluster": (_sorted_clusters, 128),
    "two kinds by turns": (_two_kinds, 128),
}


def made(name, nb, n):
    """Base [nb, d] and queries [n, d] of a data set, float32."""
    make, d = {**DATASETS, **HARD}[name]
    return tuple(
        np.ascontiguousarray(make(np.random.default_rng(seed), rows, d), "float32")
        for seed, rows in ((1, nb), (2, n))
    )
