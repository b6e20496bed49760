"""Reading files of vectors."""

from __future__ import annotations

import io
import os
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faiss_ext.errors import UserError, VectorFileError
from faiss_ext.cli.files.vector_files import SUFFIXES, open_vectors


def bytes_of(suffix: str, x: np.ndarray) -> bytes:
    """What a file of this format holds, written without the package."""
    n, d = x.shape
    if suffix == ".npy":
        out = io.BytesIO()
        np.save(out, x)
        return out.getvalue()
    if suffix in (".fvecs", ".bvecs"):
        return b"".join(struct.pack("<i", d) + row.tobytes() for row in x)
    return struct.pack("<II", n, d) + x.tobytes()


DTYPES = {
    ".npy": "float32",
    ".fvecs": "<f4",
    ".bvecs": "uint8",
    ".fbin": "<f4",
    ".u8bin": "uint8",
    ".i8bin": "int8",
}


def write(name: str, content: bytes) -> str:
    with open(name, "wb") as file:
        file.write(content)
    return name


def message(path: str) -> str:
    """The error that opening and reading the file raises."""
    with pytest.raises(VectorFileError) as caught:
        with open_vectors(path) as file:
            file.read(0, file.n)
    text = str(caught.value)
    assert path in text and "\n" not in text
    return text


def numbers(shape: tuple[int, int], dtype: str) -> np.ndarray:
    """Numbers of which each is different from its neighbours."""
    return (
        (np.arange(shape[0] * shape[1]) % 251 - 120)
        .reshape(shape)
        .astype(dtype)
    )


def test_every_format_is_covered_here():
    assert set(DTYPES) == set(SUFFIXES)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(SUFFIXES),
    n=st.integers(1, 40),
    d=st.integers(1, 9),
    rows=st.integers(1, 45),
)
def test_chunks_of_any_size_join_to_the_whole(suffix, n, d, rows):
    x = numbers((n, d), DTYPES[suffix])
    with open_vectors(write("x" + suffix, bytes_of(suffix, x))) as file:
        assert (file.n, file.d) == (n, d)
        parts = list(file.chunks(rows))
    assert [start for start, _ in parts] == list(range(0, n, rows))
    for start, part in parts:
        assert part.dtype == np.float32 and part.flags.c_contiguous
        assert part.flags.writeable
        np.testing.assert_array_equal(part, x[start : start + rows])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_in_the_middle(suffix):
    x = numbers((10, 3), DTYPES[suffix])
    with open_vectors(write("x" + suffix, bytes_of(suffix, x))) as file:
        np.testing.assert_array_equal(file.read(4, 9), x[4:9])
        np.testing.assert_array_equal(file.read(0, 2), x[:2])
        assert file.read(3, 3).shape == (0, 3)


@pytest.mark.parametrize(
    "dtype", ["<f4", ">f4", "<f2", ">f2", "uint8", "int8"]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_every_exact_type_and_order(dtype, order):
    x = np.asarray(numbers((10, 3), dtype), order=order)
    np.save("x.npy", x)
    with open_vectors("x.npy") as file:
        parts = [part for _, part in file.chunks(4)]
    got = np.concatenate(parts)
    assert all(part.dtype == np.float32 for part in parts)
    assert all(part.flags.c_contiguous for part in parts)
    np.testing.assert_array_equal(got, x.astype(np.float32))


@pytest.mark.parametrize(
    "dtype", ["float64", "int16", "int32", "int64", "uint16", "bool", "S4"]
)
def test_npy_of_an_inexact_type_is_refused_with_the_fix(dtype):
    np.save("x.npy", np.zeros((3, 2), dtype))
    text = message("x.npy")
    assert str(np.dtype(dtype)) in text and ".astype('float32')" in text


def test_npy_of_objects_is_refused_and_not_unpickled():
    np.save("x.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    assert "holds object" in message("x.npy")


@pytest.mark.parametrize("make, advice", [
    (lambda: np.array([np.zeros(3), np.zeros(2)], object), "numpy.stack"),
    (lambda: np.zeros((3, 2), "complex64"), "numpy.concatenate([x.real, x.imag]"),
    (lambda: np.zeros((3, 2), "bool"), "takes it as 0 and 1"),
    (lambda: np.zeros((3, 2), "int64"), "Add --cast, which rounds it"),
    (lambda: np.zeros((3, 2), "datetime64[s]"), "text or dates"),
])
def test_npy_of_what_is_no_vector_is_refused_with_the_advice(make, advice):
    np.save("x.npy", make())
    text = message("x.npy")
    assert advice in text and ".astype('float32')" in text
    assert str(make().dtype) in text


def test_the_advice_for_complex_numbers_keeps_distances(rng):
    x = rng.standard_normal((2, 4)) + 1j * rng.standard_normal((2, 4))
    a, b = np.concatenate([x.real, x.imag], axis=1).astype("float32")
    np.testing.assert_allclose(
        np.linalg.norm(a - b), np.linalg.norm(x[0] - x[1]), rtol=1e-6)


@pytest.mark.parametrize(
    "dtype", ["float64", ">f8", "longdouble", "int16", "int32", "int64", "uint64", "bool"]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_is_cast_becomes_the_nearest_float32(dtype, order):
    x = np.asarray(np.arange(1, 31).reshape(10, 3) * 16777217, dtype, order=order)
    if x.dtype.kind == "f":
        x[3, 1] = 1 / 3
    np.save("x.npy", x)
    with open_vectors("x.npy", cast=True) as file:
        parts = [part for _, part in file.chunks(4)]
    assert all(p.dtype == np.float32 and p.flags.c_contiguous for p in parts)
    np.testing.assert_array_equal(np.concatenate(parts), x.astype(np.float32))


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_number_beyond_float32_is_told_with_its_row(order):
    x = np.zeros((9, 3), order=order)
    x[2] = np.inf, -np.inf, np.nan
    x[7, 1] = -1e39
    np.save("x.npy", x)
    with open_vectors("x.npy", cast=True) as file:
        assert np.isinf(file.read(0, 5)[2, 0])
        with pytest.raises(VectorFileError, match=r"x.npy has a number in row 7 .*3.4e\+38"):
            file.read(5, 9)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("other", SUFFIXES)
def test_a_file_under_the_name_of_another_format_is_recognised(suffix, other):
    x = np.arange(60).reshape(20, 3)
    path = write("x" + other, bytes_of(suffix, x.astype(DTYPES[suffix])))
    if {suffix, other} <= {".u8bin", ".i8bin"} or suffix == other:
        open_vectors(path).close()
        return
    text = message(path)
    assert "looks like a " in text
    assert suffix in text.partition("looks like a ")[2]
    if suffix != ".npy":
        assert "(20 rows of 3 dimensions): rename it" in text


@pytest.mark.parametrize("content, said", [
    (b"PK\x03\x04" + bytes(40), "it looks like a zip archive, as .npz"),
    (b"\x89HDF\r\n\x1a\n" + bytes(40), "it looks like an HDF5 file"),
    (b"\x1f\x8b\x08\x00" + bytes(40), "compressed by gzip"),
    (b"\x80\x04\x95\x1b" + bytes(40), "it looks like a pickle"),
    (b"0.1,0.2,0.3\n" * 5, "it looks like text"),
])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_well_known_files_are_recognised(content, said, suffix):
    assert said in message(write("x" + suffix, content))


@pytest.mark.parametrize("suffix", [".fvecs", ".fbin", ".bvecs"])
def test_raw_numbers_are_told_to_be_saved_with_their_shape(rng, suffix):
    raw = rng.standard_normal((20, 4)).astype("<f4").tobytes()
    text = message(write("x" + suffix, raw))
    assert "looks like float32 numbers alone" in text
    assert "numpy.fromfile(..., 'float32').reshape(-1, d)" in text


def test_raw_bytes_are_like_nothing_that_is_known(rng):
    raw = rng.integers(0, 256, 320, "uint8").tobytes()
    assert "looks like" not in message(write("x.fvecs", raw))


def test_npy_of_records_is_refused():
    np.save("x.npy", np.zeros((3, 2), [("a", "f4")]))
    assert "records with named fields" in message("x.npy")


@pytest.mark.parametrize("shape", [(), (6,), (2, 3, 4)])
def test_npy_of_another_number_of_axes_is_refused(shape):
    np.save("x.npy", np.zeros(shape, "float32"))
    assert f"shape {list(shape)}, expected [n, d]" in message("x.npy")


def test_npy_with_something_behind_the_array_is_read_as_numpy_does():
    x = numbers((4, 3), "float32")
    write("x.npy", bytes_of(".npy", x) + b"more")
    with open_vectors("x.npy") as file:
        np.testing.assert_array_equal(file.read(0, 4), x)


def test_npy_of_version_2_is_read():
    x = numbers((4, 3), "float32")
    out = io.BytesIO()
    np.lib.format.write_array(out, x, version=(2, 0))
    write("x.npy", out.getvalue())
    with open_vectors("x.npy") as file:
        np.testing.assert_array_equal(file.read(0, 4), x)


def test_npy_of_another_version_is_refused():
    write("x.npy", b"\x93NUMPY\x07\x01" + bytes(80))
    assert "version 7.1, expected 1.0 or 2.0" in message("x.npy")


def test_npy_without_magic_is_refused():
    write("x.npy", b"PK\x03\x04" + bytes(80))
    assert r"begins with b'PK\x03\x04\x00\x00', expected" in message("x.npy")


@pytest.mark.parametrize("size", [3, 7, 9, 40])
def test_npy_with_a_header_cut_off_is_refused(size):
    whole = bytes_of(".npy", numbers((4, 3), "float32"))
    write("x.npy", whole[:size])
    message("x.npy")


def npy_with_header(text: str) -> bytes:
    padded = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + padded.encode()


@pytest.mark.parametrize(
    "header",
    [
        "nonsense",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<q9', 'fortran_order': False, 'shape': (1, 1)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1.5, 1)}",
        "{'descr': '<f4', 'fortran_order': 7, 'shape': (1, 1)}",
    ],
)
def test_npy_with_a_broken_header_is_refused(header):
    write("x.npy", npy_with_header(header))
    assert "broken .npy header" in message("x.npy")


def test_npy_with_negative_counts_is_refused():
    write(
        "x.npy",
        npy_with_header(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -4)}"
        )
        + bytes(16),
    )
    assert "negative" in message("x.npy")


def test_npy_that_promises_too_much_is_refused():
    shape = (10**15, 128)
    write(
        "x.npy",
        npy_with_header(
            f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"
        ),
    )
    text = message("x.npy")
    assert f"128 bytes, expected {128 + 10**15 * 128 * 4}" in text


@pytest.mark.parametrize("fortran", [True, False])
def test_npy_that_lacks_its_end_is_refused(fortran):
    x = np.asarray(numbers((4, 3), "float32"), order="F" if fortran else "C")
    write("x.npy", bytes_of(".npy", x)[:-1])
    assert "truncated" in message("x.npy")


@pytest.mark.parametrize("suffix", [".npy", ".fbin", ".u8bin", ".i8bin"])
def test_no_rows_are_rows_of_a_known_dimension(suffix):
    x = np.zeros((0, 7), DTYPES[suffix])
    with open_vectors(write("x" + suffix, bytes_of(suffix, x))) as file:
        assert (file.n, file.d) == (0, 7)
        assert list(file.chunks(5)) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_file_is_refused(suffix):
    text = message(write("x" + suffix, b""))
    assert f"empty (0 bytes), expected a {suffix} file" in text


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_a_few_bytes_is_refused(suffix):
    assert "expected" in message(write("x" + suffix, b"\1\0\0"))


@pytest.mark.parametrize("suffix", [".npy", ".fbin", ".u8bin", ".i8bin"])
def test_zero_dimensions_are_refused(suffix):
    x = np.zeros((3, 0), DTYPES[suffix])
    assert "promises 0 dim" in message(
        write("x" + suffix, bytes_of(suffix, x))
    )


@pytest.mark.parametrize("suffix", [".fvecs", ".bvecs"])
@pytest.mark.parametrize("d", [0, -1, -(2**31)])
def test_vecs_without_dimensions_are_refused(suffix, d):
    write("x" + suffix, struct.pack("<i", d) + bytes(12))
    assert f"promises {d} dimensions" in message("x" + suffix)


@pytest.mark.parametrize("suffix", [".fvecs", ".bvecs"])
def test_vecs_with_a_huge_dimension_are_refused(suffix):
    write("x" + suffix, struct.pack("<i", 2**31 - 1) + bytes(12))
    text = message("x" + suffix)
    assert "another format: 16 bytes, expected at least" in text


@pytest.mark.parametrize("suffix", [".fvecs", ".bvecs"])
def test_vecs_that_lack_their_end_are_refused(suffix):
    whole = bytes_of(suffix, numbers((4, 3), DTYPES[suffix]))
    write("x" + suffix, whole[:-1])
    text = message("x" + suffix)
    assert f"{len(whole) - 1} bytes, expected a multiple of" in text


@pytest.mark.parametrize("suffix", [".fvecs", ".bvecs"])
def test_a_row_of_another_dimension_is_refused_with_its_number(suffix):
    x = numbers((9, 3), DTYPES[suffix])
    content = bytearray(bytes_of(suffix, x))
    row_bytes = len(content) // 9
    struct.pack_into("<i", content, 7 * row_bytes, 4)
    write("x" + suffix, bytes(content))
    text = "4 dimensions in row 7, expected 3 as in row 0"
    assert text in message("x" + suffix)
    with open_vectors("x" + suffix) as file:
        file.read(0, 7)
        with pytest.raises(VectorFileError, match=text):
            list(file.chunks(2))


@pytest.mark.parametrize("suffix", [".fbin", ".u8bin", ".i8bin"])
@pytest.mark.parametrize("n", [5, 2**32 - 1])
def test_bin_that_promises_too_much_is_refused(suffix, n):
    content = bytearray(bytes_of(suffix, numbers((4, 3), DTYPES[suffix])))
    struct.pack_into("<I", content, 0, n)
    write("x" + suffix, bytes(content))
    text = message("x" + suffix)
    assert "truncated" in text and f"the {n} rows of 3 dimensions" in text


@pytest.mark.parametrize("suffix", [".fbin", ".u8bin", ".i8bin"])
def test_bin_with_something_behind_the_rows_is_refused(suffix):
    x = numbers((4, 3), DTYPES[suffix])
    write("x" + suffix, bytes_of(suffix, x) + b"x")
    assert "too long" in message("x" + suffix)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_shrinks_is_an_error_with_the_row(suffix):
    x = numbers((100, 3), DTYPES[suffix])
    path = write("x" + suffix, bytes_of(suffix, x))
    with open_vectors(path) as file:
        file.read(0, 10)
        row_bytes = (os.path.getsize(path)) // 101
        os.truncate(path, os.path.getsize(path) - 40 * row_bytes)
        with pytest.raises(VectorFileError, match="shorter .* from row [56]"):
            file.read(0, 100)


def test_an_unknown_suffix_is_refused_with_the_known_ones():
    text = message(write("x.hdf5", b"data"))
    assert "'.hdf5', expected one of .npy, .fvecs" in text


def test_the_suffix_may_be_in_capitals():
    x = numbers((4, 3), "<f4")
    with open_vectors(write("X.FVECS", bytes_of(".fvecs", x))) as file:
        np.testing.assert_array_equal(file.read(0, 4), x)


def test_a_folder_is_refused():
    os.mkdir("x.npy")
    assert "x.npy is a folder, expected a file of vectors" in message("x.npy")
    os.mkdir("vectors")
    assert "vectors is a folder" in message("vectors")


def test_a_pipe_is_refused_without_waiting():
    os.mkfifo("x.npy")
    assert "x.npy is a pipe (FIFO), expected a file of vectors" in message("x.npy")
    os.mkfifo("pipe")
    assert "pipe is a pipe (FIFO)" in message("pipe")


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0"])
def test_standard_input_is_named(name):
    text = message(name)
    assert f"{name} is standard input, expected a file" in text
    assert "save it to a file first" in text


def test_a_file_whose_name_is_a_dash_is_a_file():
    assert "suffix ''" in message(write("-", b"data"))


def test_devices_are_named():
    assert "/dev/null is a device" in message("/dev/null")


def test_a_missing_file_is_the_error_of_the_system():
    with pytest.raises(FileNotFoundError):
        open_vectors("x.npy")


def test_errors_are_both_user_errors_and_value_errors():
    assert issubclass(VectorFileError, UserError)
    assert issubclass(VectorFileError, ValueError)


def test_an_error_leaves_no_file_open():
    write("x.fvecs", struct.pack("<i", -1))
    before = os.listdir("/proc/self/fd")
    message("x.fvecs")
    assert os.listdir("/proc/self/fd") == before
