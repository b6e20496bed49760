"""The shape of the search that most tests here make: conftest.py has its index
of 200 vectors, its queries, and what it finds."""

#: Components of a vector; queries; neighbours of each.
DIMS, N, K = 8, 40, 4


def values_of(array):
    """The values of an array of a test (`GpuArray`), of ours, or of NumPy."""
    for read in ("get", "copy_to_host"):
        if hasattr(array, read):
            return getattr(array, read)()
    return array
