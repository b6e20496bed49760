"""`python -m faiss_ext knn` on the project's own index."""

from __future__ import annotations

import numpy as np
import pytest

N, D, QUERIES, K = 300, 16, 70, 5


@pytest.fixture
def run(cli, vectors):
    """Run the command on b.npy and q.npy; returns its output and result."""
    np.save("b.npy", vectors(N, D, 1))
    np.save("q.npy", vectors(QUERIES, D, 2))

    def run(*more, k=K, query="q.npy"):
        outcome = cli(
            *("knn", "--base", "b.npy", "--query", query, "-k", k),
            *("--out", "r.npz", *more),
        )
        if outcome.status:
            return outcome, None
        with np.load("r.npz") as arrays:
            return outcome, (arrays["distances"], arrays["labels"])

    return run


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("chunk", [[], ["--chunk", 32]])
def test_the_gpu_finds_what_the_cpu_finds(run, metric, chunk):
    outcome, (distances, labels) = run("--metric", metric, *chunk)
    assert outcome.status == 0 and "device     GPU 0" in outcome.out
    _, (expected, _) = run("--metric", metric, "--device", "cpu")
    np.testing.assert_array_equal(distances, expected)
    base, query = np.load("b.npy"), np.load("q.npy")
    found = base[labels]
    if metric == "ip":
        of_labels = (found * query[:, None]).sum(axis=2)
    else:
        of_labels = ((found - query[:, None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(of_labels, expected)


def test_the_gpu_finds_what_the_cpu_finds_by_cosine(run):
    outcome, (distances, _) = run("--metric", "cosine", "--chunk", 32)
    assert outcome.status == 0 and "device     GPU 0" in outcome.out
    _, (expected, _) = run("--metric", "cosine", "--device", "cpu")
    np.testing.assert_allclose(distances, expected, rtol=0, atol=1e-6)


def test_a_vector_is_not_its_own_neighbour(run):
    outcome, (distances, labels) = run("--exclude-self", query="b.npy")
    assert outcome.status == 0 and "device     GPU 0" in outcome.out
    assert not (labels == np.arange(N)[:, None]).any()
    _, (expected, _) = run("--exclude-self", "--device", "cpu", query="b.npy")
    np.testing.assert_array_equal(distances, expected)


def test_queries_go_up_once_and_results_come_back_once(run, simulator):
    np.save("q.npy", np.zeros((3000, D), np.float32))
    simulator.reset_counters()
    outcome, _ = run()
    up, down = 3000 * D * 4 / 1000, 3000 * K * 12 / 1000
    assert (
        f"transfers  {up:.3g} kB to the device and {down:.3g} kB back"
        in outcome.out
    )
    assert simulator.bytes_down() == 3000 * K * 12


def test_more_neighbours_than_vectors_get_the_label_minus_one(run):
    outcome, _ = run(k=N + 5)
    assert outcome.status == 2 and "--pad" in outcome.err
    _, (_, labels) = run("--pad", k=N + 5)
    assert (labels[:, N:] == -1).all()
    np.testing.assert_array_equal(
        np.sort(labels[:, :N], axis=1), np.tile(np.arange(N), (QUERIES, 1))
    )


def test_a_k_beyond_the_limit_goes_to_the_cpu_or_is_an_error(run):
    outcome, (_, labels) = run("--pad", k=5000)
    assert "device     CPU" in outcome.out
    assert "cannot return 5000 results" in outcome.out
    assert labels.shape == (QUERIES, 5000)
    outcome, _ = run("--device", 0, "--pad", k=5000)
    assert outcome.status == 2
    assert outcome.err.startswith("error: GPU 0 cannot return 5000 results")


def test_a_gpu_that_is_not_there_is_an_error(run):
    outcome, _ = run("--device", 99)
    assert outcome.status == 2
    assert "GPU 99 cannot be used: " in outcome.err


def test_memory_that_runs_out_on_the_gpu_is_one_line(run, simulator):
    out_of_memory = 2  # cudaErrorMemoryAllocation
    run()  # so that what fails is not the set-up
    for nth in range(1, 40):
        simulator.fail_call("cudaMalloc", nth, out_of_memory)
        outcome, _ = run("--device", 0)
        simulator.reset()
        if outcome.status == 0:
            break
        lines = outcome.err.splitlines()
        assert outcome.status == 2 and lines[-1].startswith("error: ")
        assert "Traceback" not in outcome.err
    assert nth > 1, "nothing was made to fail"
