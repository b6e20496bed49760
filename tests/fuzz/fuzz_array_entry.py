"""Fuzz the Python array entry on the simulated CUDA runtime.

    fuzz_array_entry.py SECONDS
    fuzz_array_entry.py --rounds N --seed SEED

Arrays that say anything of themselves are searched with, on our index and on one
of Faiss' own; such arrays are also given as outputs, and host arrays that lie of
everything but their size to an index on the CPU. Either the call raises
InvalidArray, or its results are those of the memory that was described. Every
loan is given back once, and the simulator has nothing to report. The last line
counts; status 1 and the smallest failing case if something is found. With the
same rounds and seed the same is fed: what `make test` runs (test_fuzz.py).
"""

from __future__ import annotations

import argparse
import collections
import random
import time

import numpy as np
from conftest import GpuArray, Simulator
from dlpack_capsules import Loan
from exchange_tables import Table
from hypothesis import HealthCheck, Phase, example, given, seed, settings
from hypothesis import strategies as st

import faiss_ext
from faiss_ext._call import in_flight
from faiss_ext._index import classes as index_classes

DIMS, N, K = 8, 40, 4

simulator = Simulator()
simulator.reset()
counts: collections.Counter = collections.Counter()
rng = np.random.default_rng(7)
resources = faiss_ext.StandardGpuResources()
base = rng.integers(-7, 8, (200, DIMS)).astype("float32")
index = faiss_ext.GpuIndexFlatL2(resources, DIMS)
stock = index_classes.class_of(faiss_ext._faiss.GpuIndexFlatL2)(resources, DIMS)
cpu = faiss_ext.IndexFlatL2(DIMS)
for each in (index, stock, cpu):
    each.add(base)
values = rng.integers(-7, 8, (N, DIMS)).astype("float32")
memory = GpuArray(simulator, values)
ADDRESS = memory._pointer.value
#: What outputs are described in: the labels of all queries, and no more.
target = GpuArray(simulator, np.full((N, K), -7, "int64"))
TARGET = target._pointer.value

extents = st.one_of(
    st.sampled_from([0, 1, DIMS, N, N - 1, N + 1, -1, 2**31, 2**62, 2**63 - 1]),
    st.integers(-(2**63), 2**63 - 1),
)
steps = st.one_of(
    st.sampled_from([1, 4, DIMS, 4 * DIMS, -DIMS, -4 * DIMS, 0, 2**61, -(2**63)]),
    st.integers(-(2**63), 2**63 - 1),
)
shapes = st.one_of(
    st.just((N, DIMS)),
    st.tuples(st.integers(0, N), st.just(DIMS)),
    st.lists(extents, max_size=4).map(tuple),
)
strides = st.one_of(
    st.none(), st.just((DIMS, 1)), st.just((4 * DIMS, 4)),
    st.lists(steps, max_size=4).map(tuple),
)
offsets = st.one_of(
    st.just(0), st.integers(0, N * DIMS).map(lambda n: 4 * n),
    st.integers(-(2**40), 2**40),
)
streams = st.sampled_from([None, 1, 2, 0, -1, "1", 1.5])
anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=4),
    st.tuples(), st.lists(st.integers(), max_size=3), st.floats(),
)

ROUND = settings(
    max_examples=500, deadline=None, database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


def often(strategy, otherwise=anything):
    """Mostly what belongs there; else anything at all."""
    return st.integers(0, 9).flatmap(
        lambda roll: otherwise if roll == 0 else strategy)


interfaces = st.fixed_dictionaries(
    {
        "version": often(st.sampled_from([3, 3, 3, 2])),
        "shape": often(shapes),
        "typestr": often(st.sampled_from(
            ["<f4", "<f4", "<f4", "<f8", ">f4", "<i8", "|V4", "|O", "<f2", "<c8"])),
        "data": often(st.tuples(
            often(offsets.map(lambda o: ADDRESS + o)), often(st.booleans()))),
    },
    optional={
        "strides": often(strides),
        "stream": streams,
        "mask": often(st.none()),
    },
).flatmap(lambda said: st.sampled_from([None] * 20 + sorted(said)).map(
    lambda missing: {k: v for k, v in said.items() if k != missing}))
loans = st.fixed_dictionaries(
    {
        "shape": shapes.filter(lambda s: all(-(2**63) <= e < 2**63 for e in s)),
        "offset": st.one_of(st.just(0), st.integers(0, 2**64 - 1), offsets.map(abs)),
        "version": st.sampled_from([None, (1, 0), (1, 1), (0, 1), (2, 0)]),
        "flags": st.sampled_from([0, 1, 2, 3, 2**63]),
        "dtype": st.sampled_from(
            [(2, 32, 1)] * 4 + [(2, 64, 1), (4, 16, 1), (9, 32, 1), (2, 32, 2), (2, 0, 1)]),
        "device": st.sampled_from([(2, 0)] * 5 + [(1, 0), (2, 1), (3, 0), (13, 0), (10, 0)]),
        "deleter": st.booleans(),
        "null": st.integers(0, 9).map(lambda roll: roll == 0),
    },
    optional={
        "strides": strides,
        "rank": st.sampled_from([-1, 0, 1, 2, 64, 65, 2**31 - 1]),
        "null_shape": st.booleans(),
    },
)


def described_rows(shape, byte_offset, byte_strides):
    """The vectors that a valid description speaks of; None where some lie
    outside of `memory`: elsewhere lie other arrays of the GPU, and nobody can
    tell."""
    steps = (4 * DIMS, 4) if byte_strides is None else byte_strides
    at = byte_offset + (
        np.arange(shape[0], dtype=object)[:, None] * steps[0]
        + np.arange(DIMS, dtype=object)[None] * steps[1]
    )
    if not all(0 <= address <= values.nbytes - 4 for address in at.ravel()):
        return None
    return values.ravel()[at.astype("int64") // 4]


def reaches_out(shape, byte_offset, byte_strides):
    """Whether vectors lie outside of `memory`. Where both ends lie in memory of
    the GPU and not in the same allocation, the runtime cannot tell."""
    if len(shape) != 2 or not 0 <= shape[0] <= N:
        return True
    return described_rows(shape, byte_offset, byte_strides) is None


def search(on, x, shape, byte_offset, byte_strides, is_float32, kind, cast):
    """One execution; the labels must be those of the described rows."""
    counts[kind] += 1
    I = np.full((int(shape[0]) if shape else 0, K), -7, "int64") if (
        isinstance(shape, tuple) and len(shape) == 2
        and isinstance(shape[0], int) and 0 <= shape[0] <= N) else None
    D = None if I is None else np.empty(I.shape, "float32")
    try:
        on.search(x, K, D=D, I=I, cast=cast)
    except faiss_ext.InvalidArray as error:
        assert str(error).startswith("x"), error
    except RuntimeError:
        if not reaches_out(shape, byte_offset, byte_strides):
            raise
        counts["accepted beyond one allocation"] += 1
        simulator.reset()
        in_flight.finish()
        simulator.reset()
        return
    else:
        counts[kind + " accepted"] += 1
        if I is not None and len(I) and is_float32:
            rows = described_rows(shape, byte_offset, byte_strides)
            if rows is not None:
                counts[kind + " compared"] += 1
                np.testing.assert_array_equal(I, labels_of(rows))
    simulator.synchronize()
    in_flight.release_finished()
    # To ask the runtime what an address is, is how a lie is found out.
    reports = [
        report for report in simulator.reports()
        if "cudaPointerGetAttributes" not in report.splitlines()[0]
    ]
    simulator.library.cuda_sim_clear_reports()
    if reports and reaches_out(shape, byte_offset, byte_strides):
        counts["accepted beyond one allocation"] += 1
        simulator.reset()
        return
    assert not reports, reports


def labels_of(rows):
    """By Faiss' own path, through NumPy."""
    return index.search(np.ascontiguousarray(rows), K)[1]


@ROUND
@example({"version": 3, "shape": (N, DIMS), "typestr": "<f4",
          "data": (ADDRESS, False), "stream": 1}, False, False)
@example({"version": 3, "shape": (2**62, DIMS), "typestr": "<f4",
          "data": (ADDRESS, False)}, False, False)
@example({"version": 3, "shape": (N, DIMS), "typestr": "<f4",
          "data": (ADDRESS, False), "strides": (-4 * DIMS, 4)}, False, False)
@example({"version": True, "shape": (True, DIMS), "typestr": "<f4",
          "data": (ADDRESS, False)}, False, False)
@given(often(interfaces), st.booleans(), st.booleans())
def interface(said, on_stock, cast):
    x = type("Array", (), {"__cuda_array_interface__": said})()
    data = said.get("data") if isinstance(said, dict) else None
    pointer = data[0] if isinstance(data, (tuple, list)) and data else None
    offset = pointer - ADDRESS if isinstance(pointer, int) else 0
    shape = said.get("shape") if isinstance(said, dict) else None
    is_float32 = isinstance(said, dict) and said.get("typestr") == "<f4"
    steps = said.get("strides") if isinstance(said, dict) else None
    search(stock if on_stock else index, x, shape, offset, steps, is_float32,
           "interfaces", cast)


class Exporter:
    """Lends what `said` describes, each time anew."""

    def __init__(self, address, said):
        self.address, self.said, self.loans = address, said, []

    def lend(self, **changed):
        self.loans.append(Loan(self.address, **{**self.said, **changed}))
        return self.loans[-1]

    def __dlpack_device__(self):
        return self.said["device"]

    def __dlpack__(self, **options):
        return self.lend().capsule()


class TableExporter(Exporter):
    """The same by a table of functions, too; where no version is said, it has
    that of the table."""

    table = Table(
        lambda array: array.lend(version=array.said["version"] or (1, 3)),
        lambda kind, number: 0,
    )
    __dlpack_c_exchange_api__ = table.capsule


@ROUND
@example({"shape": (N, DIMS), "offset": 0, "version": (1, 0), "flags": 0,
          "dtype": (2, 32, 1), "device": (2, 0), "deleter": True, "null": False},
         False, False, False)
@example({"shape": (N, DIMS), "offset": 0, "version": (1, 0), "flags": 0,
          "dtype": (2, 32, 1), "device": (2, 0), "deleter": True, "null": False},
         True, False, False)
@example({"shape": (N, DIMS), "offset": 2**64 - 4, "version": None, "flags": 0,
          "dtype": (2, 32, 1), "device": (2, 0), "deleter": True, "null": False},
         False, False, False)
# Memory of a GPU, and of nobody, that is said to be pinned; with and without the
# table of functions.
@example({"shape": (N, DIMS), "offset": 0, "version": (1, 0), "flags": 0,
          "dtype": (2, 32, 1), "device": (3, 0), "deleter": True, "null": False},
         False, False, False)
@example({"shape": (N, DIMS), "offset": 2**40, "version": (1, 0), "flags": 0,
          "dtype": (2, 32, 1), "device": (3, 0), "deleter": True, "null": False},
         True, False, False)
@example({"shape": (N, DIMS), "offset": 0, "version": (1, 0), "flags": 0,
          "dtype": (2, 32, 1), "device": (13, 0), "deleter": True, "null": False},
         True, False, False)
# No rows, on a GPU that does not exist.
@example({"shape": (0, DIMS), "offset": 0, "version": (1, 0), "flags": 0,
          "dtype": (2, 32, 1), "device": (2, 1), "deleter": True, "null": False},
         False, False, False)
@given(loans, st.booleans(), st.booleans(), st.booleans())
def dlpack(said, by_table, on_stock, cast):
    said = dict(said)
    null = said.pop("null")
    deleter = said["deleter"]
    device = said["device"]
    steps = said.get("strides")
    # The loan's arrays of shape and strides must be as long as its rank says:
    # what they are is not known to any consumer.
    rank = said.get("rank", len(said["shape"]))
    if steps is not None and len(steps) < min(rank, 64):
        said["strides"] = steps + (1,) * (64 - len(steps))
    shape = said["shape"]
    if len(shape) < min(rank, 64):
        said["shape"] = shape + (1,) * (64 - len(shape))
        said["rank"] = rank
    elif "rank" not in said:
        said["rank"] = len(shape)
    address = 0 if null else ADDRESS
    if device[0] == 1 and not null:
        # Host memory that is described wrongly cannot be told from other host
        # memory by anyone: only its numbers are fuzzed.
        said["device"] = device = (2, 0)
    x = (TableExporter if by_table else Exporter)(address, said)
    search(
        stock if on_stock else index,
        x, said["shape"][: max(rank, 0)], said["offset"],
        None if steps is None else tuple(4 * s for s in said["strides"]),
        said["dtype"] == (2, 32, 1), "loans", cast)
    # Of a kind, and on a GPU, that are not there it is not asked for more.
    assert x.loans or device in ((10, 0), (2, 1))
    assert all(loan.deleted == deleter for loan in x.loans)
    counts["by a table"] += by_table and not on_stock and len(x.loans) == 1


outputs = st.fixed_dictionaries(
    {
        "version": often(st.sampled_from([3, 3, 3, 2])),
        "shape": often(st.one_of(st.just((N, K)), shapes)),
        "typestr": often(st.sampled_from(
            ["<i8", "<i8", "<i8", "<i4", "<i4", "<f4", "<i2", ">i8", "<u8"])),
        "data": often(st.tuples(
            often(offsets.map(lambda o: TARGET + o)),
            st.sampled_from([False] * 5 + [True, None, 0, 1]))),
    },
    optional={"strides": often(st.one_of(
        st.none(), st.just((8 * K, 8)), st.just((4 * K, 4)), strides))},
)


@ROUND
@example({"version": 3, "shape": (N, K), "typestr": "<i8",
          "data": (TARGET, False)}, False)
@example({"version": 3, "shape": (N, K), "typestr": "<i4",
          "data": (TARGET, False)}, False)
@given(outputs, st.booleans())
def output(said, on_stock):
    """Labels go to the described memory, or the call is refused and the memory
    is as it was."""
    counts["outputs"] += 1
    target.set(np.full((N, K), -7, "int64"))
    on = stock if on_stock else index
    out = type("Array", (), {"__cuda_array_interface__": said})()
    try:
        on.search(values, K, I=out)
    except faiss_ext.InvalidArray as error:
        assert str(error).startswith(("I: ", "I and ", "I is ")), error
        simulator.synchronize()
        assert (target.get() == -7).all()
    else:
        counts["outputs accepted"] += 1
        found = target.get()
        if said["data"][0] == TARGET:
            counts["outputs compared"] += 1
            found = found.ravel().view(said["typestr"])[: N * K]
            np.testing.assert_array_equal(
                found.reshape(N, K), labels_of(values))
    in_flight.release_finished()
    reports = [
        report for report in simulator.reports()
        if "cudaPointerGetAttributes" not in report.splitlines()[0]
    ]
    simulator.library.cuda_sim_clear_reports()
    assert not reports, reports


on_host = st.fixed_dictionaries(
    {
        "rows": st.integers(0, N),
        "columns": st.sampled_from([DIMS] * 6 + [0, 1, DIMS - 1, DIMS + 1]),
        "kind": st.sampled_from(
            ["float32"] * 3 + ["float64", "int8", "uint16", "int64", "bool",
                               "float16", "complex64", "S4", "object"]),
        "order": st.sampled_from(["rows", "columns", "reversed", "every other"]),
        "as": st.sampled_from(
            ["ndarray", "list", "memoryview", "dlpack", "interface", "masked"]),
        "rank": st.sampled_from([2] * 6 + [0, 1, 3]),
    }
)


def host_array(said):
    """The described array, and its values."""
    held = values[: said["rows"]]
    held = np.resize(held, (said["rows"], said["columns"])) if held.size else (
        np.zeros((said["rows"], said["columns"])))
    with np.errstate(all="ignore"):
        held = held.astype(said["kind"])
    made = {
        "rows": lambda: held,
        "columns": lambda: np.asfortranarray(held),
        "reversed": lambda: np.ascontiguousarray(held[::-1])[::-1],
        "every other": lambda: np.repeat(held, 2, axis=1)[:, ::2],
    }[said["order"]]()
    made = {0: lambda: made[:1, :1].reshape(-1)[:1].reshape(()) if made.size else made,
            1: lambda: made.reshape(-1), 2: lambda: made,
            3: lambda: made[None]}[said["rank"]]()
    return made


@ROUND
@given(on_host, st.booleans())
def host(said, on_gpu):
    """Arrays on the host: what an index on the CPU and one on the GPU make of
    them is what they make of NumPy's own."""
    counts["host arrays"] += 1
    made = host_array(said)
    way = said["as"]
    x = made
    if way == "list":
        x = made.tolist()
    elif way == "masked":
        x = np.ma.masked_array(made, mask=np.arange(made.size).reshape(made.shape) == 0)
    elif way == "memoryview" and made.dtype.kind != "O":
        x = memoryview(made)
    elif way == "interface" and made.dtype.kind != "O":
        x = type("A", (), {"__array_interface__": made.__array_interface__,
                           "keep": made})()
    elif way == "dlpack" and made.dtype.kind in "fiu":
        code = {"f": 2, "i": 0, "u": 1}[made.dtype.kind]
        x = Exporter(made.ctypes.data, {
            "shape": made.shape, "device": (1, 0),
            "dtype": (code, made.itemsize * 8, 1),
            "strides": tuple(s // made.itemsize for s in made.strides)})
    on = index if on_gpu else cpu
    try:
        found = on.search(x, K)[1]
    except faiss_ext.InvalidArray:
        return
    except (ValueError, TypeError) as error:
        # NumPy's own, where what it was given is NumPy's business.
        assert way in ("ndarray", "list", "memoryview") or (
            made.dtype.kind in "OSc"), (said, error)
        return
    counts["host arrays compared"] += 1
    shape = np.shape(x) if way == "list" else made.shape
    # (0,), as ``[]`` has it, is a batch of none.
    assert shape == (0,) or shape[1:] == (DIMS,)
    if len(made) and made.dtype.kind in "fiu":
        same = np.ascontiguousarray(made, "float32")
        np.testing.assert_array_equal(found, on.search(same, K)[1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=float, nargs="?", default=float("inf"))
    parser.add_argument("--rounds", type=int, default=2**32)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    asked = parser.parse_args()
    end = time.monotonic() + asked.seconds
    start, rounds = asked.seed, 0
    while rounds < asked.rounds and time.monotonic() < end:
        for body in (interface, dlpack, output, host):
            seed(start + rounds)(body)()
        rounds += 1
    simulator.synchronize()
    print(", ".join(f"{n} {what}" for what, n in sorted(counts.items())),
          f"(seeds {start} to {start + rounds - 1})")


if __name__ == "__main__":
    main()
