"""The examples in the docstrings of what users call run, on the simulated GPU."""

from __future__ import annotations

import inspect

import faiss_ext as package
import numpy as np
import pytest
from docstrings import check_examples, public_methods

CLASSES = (
    package.GpuIndexFlat, package.GpuIndexFlatCosine, package.PooledGpuResources,
    package.DeviceArray, package.SearchProfile, package.StageSpan,
    package.ComputeSpan, package.ComputeStage,
)
DOCUMENTED = {
    **{name: function for name, function in package._ours._names.items()
       if inspect.isfunction(function)},
    **{the_class.__name__: the_class for the_class in CLASSES[1:]},
    **{name: method for c in CLASSES for name, method in public_methods(c)},
}


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_examples_run(faiss_ext, gpu_array, name):
    queries = np.eye(4, dtype="float32")[:2]
    check_examples(name, DOCUMENTED[name], gpu_queries=gpu_array(queries))


def test_what_users_call_is_among_them():
    assert DOCUMENTED.keys() >= {
        "knn_gpu", "normalize_L2", "GpuIndexFlatCosine", "pinned_empty", "index_cpu_to_gpu", "PooledGpuResources",
        "GpuIndexFlat.search", "GpuIndexFlat.add", "GpuIndexFlat.transfer_stats",
        "GpuIndexFlat.profile_search", "SearchProfile.busy",
    }


def test_a_wrong_example_is_noticed():
    def wrong():
        """Wrong.

        Examples
        --------
        >>> 1 + 1
        3
        """

    with pytest.raises(AssertionError, match="Expected"):
        check_examples("wrong", wrong)
    with pytest.raises(AssertionError, match="has no examples"):
        check_examples("none", lambda: None)
