"""Cosine similarity on the host: `knn` with metric="cosine", and the normalised
vectors that NumPy and the native part make, bit for bit."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import faiss_ext
from conftest import package_environment
from faiss_ext._interop import unit_vectors


def odd_rows(n: int, d: int, seed: int) -> np.ndarray:
    """Vectors of many lengths, zeros, and some with NaN and infinities."""
    rng = np.random.default_rng(seed)
    sizes = rng.choice([1, 0, 1e30, 1e-40, 3e38, 1e-25], (n, 1))
    x = (rng.uniform(-1, 1, (n, d)) * sizes).astype("float32")
    x[3::7, seed % d] = np.nan
    x[5::7, seed % d] = -np.inf
    return x


def documented(x: np.ndarray) -> np.ndarray:
    """The formula of docs/exact-search.md, one component after another."""
    made = np.empty_like(x)
    for row, values in enumerate(x.astype("float64")):
        chains = np.zeros(128)
        for i, value in enumerate(values):
            chains[i % 128] += value * value
        lanes = [(a + b) + (c + e) for a, b, c, e in chains.reshape(32, 4)]
        for half in (16, 8, 4, 2, 1):
            for i in range(half):
                lanes[i] += lanes[i + half]
        total = lanes[0]
        if not np.isfinite(total):
            made[row] = np.nan
        elif total == 0 or abs(total - 1) <= 2.0**-22:
            made[row] = x[row]
        else:
            made[row] = (values * (1 / np.sqrt(total))).astype("float32")
    return made


def bits(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).view("uint32")


@pytest.mark.parametrize("d", [1, 2, 3, 4, 7, 127, 128, 129, 300])
def test_normalised_vectors_have_the_bits_of_the_formula(d, monkeypatch):
    x = odd_rows(40, d, d)
    given = x.copy()
    expected = bits(documented(x))
    np.testing.assert_array_equal(bits(unit_vectors.normalized(x)), expected)
    # By NumPy, in blocks of three rows.
    monkeypatch.setattr(unit_vectors, "native", None)
    monkeypatch.setattr(unit_vectors, "_AT_ONCE", 3 * max(d, 128))
    np.testing.assert_array_equal(bits(unit_vectors.normalized(x)), expected)
    np.testing.assert_array_equal(bits(x), bits(given))


def test_nothing_changes_the_second_time():
    once = unit_vectors.normalized(odd_rows(200, 33, 1))
    np.testing.assert_array_equal(bits(unit_vectors.normalized(once)), bits(once))


def test_knn_finds_the_largest_cosines():
    rng = np.random.default_rng(0)
    xb, xq = rng.standard_normal((100, 8)), rng.standard_normal((9, 8))
    xb *= 10.0 ** rng.uniform(-20, 20, (100, 1))
    given = xb.astype("float32"), xq.astype("float32")
    copies = [x.copy() for x in given]
    D, I = faiss_ext.knn(given[1], given[0], 5, metric="cosine")
    cosines = (xq / np.linalg.norm(xq, axis=1, keepdims=True)) @ (
        xb / np.linalg.norm(xb, axis=1, keepdims=True)
    ).T
    np.testing.assert_allclose(D, -np.sort(-cosines, axis=1)[:, :5], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(cosines, I, 1), D, atol=1e-6)
    for x, copy in zip(given, copies):
        np.testing.assert_array_equal(x, copy)


def test_knn_by_cosine_of_odd_vectors():
    xb = np.array([[0, 0], [np.nan, 1], [1e-40, 0], [-1e30, 0], [1, np.inf]], "float32")
    D, I = faiss_ext.knn(np.array([[7, 0]], "float32"), xb, 5, "cosine")
    assert I[0].tolist() == [2, 0, 3, -1, -1]
    assert D[0, :3].tolist() == [1, 0, -1]
    D, I = faiss_ext.knn(np.zeros((1, 2), "float32"), xb, 1, metric="cosine")
    assert D[0, 0] == 0


def test_knn_by_cosine_takes_what_knn_takes():
    xb = [[3, 4], [1, 0]]
    for queries in ([[0.5, 0]], np.array([[2]] * 2, "int8").T * [[1, 0]],
                    np.array([[2, 0]], "float16")):
        D, I = faiss_ext.knn(queries, xb, 1, metric="cosine")
        assert I.tolist() == [[1]] and D.tolist() == [[1]]
    D, I = faiss_ext.knn([], xb, 1, metric="cosine")
    assert D.shape == (0, 1)
    assert faiss_ext.knn(xb, [], 2, metric="cosine")[1].tolist() == [[-1, -1]] * 2


@pytest.mark.parametrize("xq, metric, message", [
    ([[1, 0]], "cosin", "metric: 'cosin'; 'cosine' is needed, or a number of Faiss'"),
    ([1, 0], "cosine", r"xq: shape \(2,\); needed \(n, d\)"),
    ([[1, 0, 0]], "cosine", "xq|xb"),
    ("text", "cosine", "xq: "),
    (None, "cosine", "xq: None"),
])
def test_what_does_not_fit_is_one_error(xq, metric, message):
    with pytest.raises(faiss_ext.InvalidArray, match=message):
        faiss_ext.knn(xq, np.eye(2, dtype="float32"), 1, metric=metric)


def test_other_metrics_are_faiss_own():
    x = np.eye(3, dtype="float32") * 2
    D, _ = faiss_ext.knn(x, x, 3, metric=faiss_ext.METRIC_INNER_PRODUCT)
    assert D.tolist() == [[4, 0, 0]] * 3
    assert "cosine" in faiss_ext.knn.__doc__


def test_the_index_class_is_named_everywhere():
    program = (
        "import faiss_ext as f\n"
        "assert isinstance(f.GpuIndexFlatCosine, type)\n"
        "assert issubclass(f.GpuIndexFlatCosine, f.GpuIndexFlat)\n"
        "if f.get_num_gpus() == 0:\n"
        "    try: f.GpuIndexFlatCosine(None, 4)\n"
        "    except (f.GpuUnavailable, f.InvalidDevice, TypeError): pass\n"
        "    else: raise SystemExit(1)\n"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, env=package_environment()
    )
