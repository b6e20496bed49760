"""DLPack's capsules, read in Python where there is no native part: as it reads
them, and in its words where they lie."""

from __future__ import annotations

import random

import pytest
from dlpack_capsules import COPIED, CPU, READ_ONLY, Loan

from faiss_ext._interop import host_capsules
from faiss_ext._native import swigfaiss_ext as native
from faiss_ext.errors import InvalidArray

BIG = 2**62
RIGHT = {"data": 4096, "shape": (3, 4), "device": (CPU, 0)}
CAPSULES = {
    "plain": {},
    "scalar": {"shape": ()},
    "one row": {"shape": (1, 4), "strides": (-77, 1)},
    "empty": {"shape": (0, 4), "data": 0, "offset": 64},
    "column-major": {"strides": (1, 3)},
    "backwards": {"strides": (-4, 1)},
    "zero strides": {"strides": (0, 1)},
    "offset": {"offset": 128},
    "versioned": {"version": (1, 7)},
    "read-only": {"version": (1, 0), "flags": READ_ONLY},
    "copied": {"version": (1, 0), "flags": COPIED | READ_ONLY},
    "other version": {"version": (2, 3)},
    "pinned": {"device": (3, 0)},
    "managed": {"device": (13, 0)},
    "elsewhere": {"device": (9, 1)},
    "lanes": {"dtype": (2, 32, 4)},
    "opaque": {"dtype": (3, 32, 1)},
    "float8": {"dtype": (10, 8, 1)},
    "bits": {"dtype": (2, 24, 1)},
    "no shape": {"null_shape": True},
    "negative": {"shape": (-3, 4)},
    "huge": {"shape": (BIG, 4)},
    "huge in all": {"shape": (2**31, 2**31, 2**31)},
    "far": {"strides": (BIG, 1)},
    "far of one row": {"shape": (1, 4), "strides": (BIG, 1)},
    "far of none": {"shape": (0, 4), "strides": (1, BIG)},
    "far enough": {"strides": (BIG // 4, 1)},
    "below": {"strides": (-4096, 1)},
    "null": {"data": 0},
    "odd address": {"data": 4098},
    "rank below": {"rank": -1},
    "rank beyond": {"rank": 65},
    "taken": {"name": b"used_dltensor"},
    "strange": {"name": b"something_else"},
    **{f"{code}, {bits} bits": {"dtype": (code, bits, 1)}
       for code in (0, 1, 2, 4, 5, 6) for bits in (8, 16, 32, 64, 128)},
}


def told(reader, loan):
    """What a reader makes of a capsule: numbers, or the words of its refusal."""
    try:
        held = reader.take_dlpack_c("x", loan.capsule())
        return reader.describe_borrowed_c("x", held)
    except InvalidArray as error:
        return str(error)


def compare(options):
    # A taker calls the deleter, so each has a loan of its own.
    loans = [Loan(**{**RIGHT, **options}) for _ in range(2)]
    wanted = told(native, loans[0])
    found = told(host_capsules, loans[1])
    if isinstance(wanted, str) and wanted.endswith("reach further than memory does"):
        # C++ has to say so earlier.
        wanted = wanted.replace(
            "reach further than memory does", "reach outside of the address space")
    assert found == wanted


@pytest.mark.parametrize("which", CAPSULES)
def test_both_read_a_capsule_alike(which):
    compare(CAPSULES[which])


def test_both_read_any_capsule_alike():
    choose = random.Random(1797)
    for _ in range(3000):
        rank = choose.randrange(4)
        compare({
            "shape": tuple(choose.choice((0, 1, 2, 5, -1, 2**40)) for _ in range(rank)),
            "strides": choose.choice((None, tuple(
                choose.choice((0, 1, -1, 5, 2**30, -(2**61))) for _ in range(rank)))),
            "dtype": (choose.randrange(8), choose.choice((1, 8, 16, 32, 64)), 1),
            "data": choose.choice((0, 2**20, 2**20 + 2)),
            "offset": choose.choice((0, 8, 2**40)),
            "version": choose.choice((None, (1, 0), (0, 8))),
            "flags": choose.randrange(8),
        })


def test_what_is_no_capsule_is_named_alike():
    for strange in (None, 7, "dltensor"):
        words = []
        for reader in (native, host_capsules):
            with pytest.raises(InvalidArray) as caught:
                reader.take_dlpack_c("x", strange)
            words.append(str(caught.value))
        assert words[0] == words[1]
