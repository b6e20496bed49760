"""GPU arrays in and out: nothing moves over the link, and nobody waits."""

from small_search import K, QUERIES, moved


def test_no_byte_crosses_the_link_and_the_host_does_not_wait(
    library, index, queries
):
    x = library.to_gpu(queries)
    kept = index.search(x, K)
    index.reset_transfer_stats()
    kept = index.search(x, K)
    stats = index.transfer_stats()
    assert not any(moved(stats).values()), stats
    del kept


def test_host_results_come_back_once_with_one_wait(library, index, queries):
    import numpy as np

    D, I = np.empty((QUERIES, K), "float32"), np.empty((QUERIES, K), "int64")
    x = library.to_gpu(queries)
    index.search(x, K, D=D, I=I)
    index.reset_transfer_stats()
    index.search(x, K, D=D, I=I)
    stats = index.transfer_stats()
    assert stats["host_waits"] == 1
    assert stats["bytes_to_host"] == D.nbytes + I.nbytes
    assert stats["bytes_to_device"] == 0
