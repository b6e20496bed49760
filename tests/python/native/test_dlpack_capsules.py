"""The capsules of the tests themselves."""

from __future__ import annotations

import gc

import numpy as np
from dlpack_capsules import CPU, Loan

from faiss_ext._interop.take import array_view


def test_an_exporter_may_end_with_what_it_has_lent():
    """In one garbage collection, in any order."""

    class Exporter:
        def __init__(self, values):
            self.values = values
            self.loan = Loan(values.ctypes.data, values.shape, device=(CPU, 0))

        def __dlpack_device__(self):
            return CPU, 0

        def __dlpack__(self, **_):
            return self.loan.capsule()

    loans = []
    for _ in range(20):
        x = Exporter(np.zeros((3, 4), "float32"))
        loans.append(x.loan)
        x.borrowed = array_view(x, "x", -1)
        del x
        gc.collect()
    assert [loan.deleted for loan in loans] == [1] * 20
