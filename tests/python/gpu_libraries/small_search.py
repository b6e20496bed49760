"""The size of the searches here, and vectors with exact distances."""

import numpy as np

DIMS, STORED, QUERIES, K = 24, 3000, 200, 5


def integers(n, seed):
    """Vectors of small integers: their distances are exact in float32."""
    random = np.random.default_rng(seed)
    return random.integers(-7, 8, (n, DIMS)).astype("float32")


def moved(stats):
    """Of an index's transfer statistics what moved, waited or was allocated."""
    return {
        name: value for name, value in stats.items()
        if not name.endswith("queries") and name != "searched_by"
    }
