"""The shape of the search that most tests here make: conftest.py has its index
of 200 vectors, its queries, and what it finds."""

#: Components of a vector; queries; neighbours of each.
DIMS, N, K = 8, 40, 4
