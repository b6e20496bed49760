"""Files of search results, written in chunks of queries.

`X.npz` holds `distances` (float32, [n, k]) and `labels` (int64, [n, k]).
`X.ivecs` holds the labels as int32, and `X.fvecs` beside it the distances;
per row: int32 k, then k values.
"""

from __future__ import annotations

import abc
import contextlib
import os
import shutil
from collections.abc import Iterator

import numpy as np

from ...errors import UserError
from .atomic_files import AtomicFile, atomic_files
from .file_kinds import kind_of
from .npz_stream import NpzStream

__all__ = [
    "SUFFIXES",
    "ResultFile",
    "open_results",
    "result_paths",
    "write_vecs",
]

#: The suffixes that `open_results` knows.
SUFFIXES = (".npz", ".ivecs")

_MAX_INT32 = 2**31 - 1


def result_paths(path: str) -> tuple[str, ...]:
    """The files that results under this name are written to.

    Raises
    ------
    UserError
        No regular file, or an unknown suffix.
    """
    _check_kind(path)
    stem, suffix = os.path.splitext(path)
    if suffix.lower() == ".npz":
        return (path,)
    if suffix.lower() == ".ivecs":
        # The labels last: where they are, the distances are.
        return (stem + ".fvecs", path)
    raise UserError(
        f"the output {path} has the suffix '{suffix}', expected one of "
        f"{', '.join(SUFFIXES)}"
    )


@contextlib.contextmanager
def open_results(
    path: str, n: int, k: int, ntotal: int
) -> Iterator[ResultFile]:
    """Write the results of `n` queries; the suffix says how.

    The files are there, complete, when the `with` block is left normally, and
    not at all when it is left through an exception. Whatever can be known to
    fail is raised on entering the block, before any search.

    Parameters
    ----------
    path : str
        The file, `.npz` or `.ivecs`. An older result is replaced.
    n, k : int
        Shape of the result.
    ntotal : int
        Number of vectors searched, which bounds the labels.

    Yields
    ------
    ResultFile
        Wants the results of all `n` queries.

    Raises
    ------
    UserError
        An unknown suffix, a missing folder or one that cannot be written to,
        a folder or device of that name, labels that int32 cannot hold, too
        little space, an `X.fvecs` that belongs to no older result; later, any
        refusal of the system to write.
    """
    paths = result_paths(path)
    for each in paths:
        _check_place(each)
    if len(paths) == 2:
        _check_vecs(*paths, ntotal)
    layout = _Npz if len(paths) == 1 else _Vecs
    _check_space(path, layout.nbytes(n, k))
    with atomic_files(*paths) as files:
        result = layout(files, n, k)
        yield result
        result.finish()


class ResultFile(abc.ABC):
    """Takes the results of `n` queries, in their order."""

    def __init__(self, n: int) -> None:
        self._left = n

    def write(self, distances: np.ndarray, labels: np.ndarray) -> None:
        """Append the results of the next queries.

        Parameters
        ----------
        distances : numpy.ndarray
            float32, shape [m, k].
        labels : numpy.ndarray
            int64, shape [m, k].

        Raises
        ------
        UserError
            The system refuses to write, for instance on a full disk.
        ValueError
            More queries than promised.
        """
        self._left -= len(labels)
        if self._left < 0:
            raise ValueError("there are more results than queries")
        self._append(distances, labels)

    def finish(self) -> None:
        """Write what follows the last row.

        Raises
        ------
        ValueError
            Fewer queries than promised.
        """
        if self._left:
            raise ValueError(f"{self._left} queries have no result")

    @abc.abstractmethod
    def _append(self, distances: np.ndarray, labels: np.ndarray) -> None:
        """Write rows."""


class _Npz(ResultFile):
    def __init__(self, files: list[AtomicFile], n: int, k: int) -> None:
        super().__init__(n)
        (file,) = files
        self._stream = NpzStream(
            file,
            {
                "distances": ((n, k), np.dtype("<f4")),
                "labels": ((n, k), np.dtype("<i8")),
            },
        )

    @staticmethod
    def nbytes(n: int, k: int) -> int:
        return n * k * (4 + 8)

    def _append(self, distances: np.ndarray, labels: np.ndarray) -> None:
        self._stream.write("distances", distances)
        self._stream.write("labels", labels)

    def finish(self) -> None:
        super().finish()
        self._stream.finish()


class _Vecs(ResultFile):
    def __init__(self, files: list[AtomicFile], n: int, k: int) -> None:
        super().__init__(n)
        self._distances, self._labels = files

    @staticmethod
    def nbytes(n: int, k: int) -> int:
        return n * (k + 1) * (4 + 4)

    def _append(self, distances: np.ndarray, labels: np.ndarray) -> None:
        self._distances.write(_with_heads(distances, "<f4"))
        self._labels.write(_with_heads(labels, "<i4"))


def write_vecs(path: str, rows: np.ndarray) -> None:
    """Write a whole array as a `.fvecs` or `.ivecs` file.

    Parameters
    ----------
    path : str
        The file; its suffix says whether float32 or int32. An older file is
        replaced at the end and at once.
    rows : numpy.ndarray
        Shape [n, d].

    Raises
    ------
    UserError
        Another suffix, or the file cannot be written; no part of it is left.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in (".fvecs", ".ivecs"):
        raise UserError(
            f"{path} has the suffix '{suffix}', expected .fvecs or .ivecs"
        )
    with atomic_files(path) as (file,):
        file.write(_with_heads(rows, "<f4" if suffix == ".fvecs" else "<i4"))


def _with_heads(rows: np.ndarray, dtype: str) -> memoryview:
    """The bytes of rows that each begin with their length."""
    n, width = rows.shape
    out = np.empty((n, width + 1), dtype)
    out[:, :1].view("<i4")[:] = width
    out[:, 1:] = rows
    return out.reshape(-1).view(np.uint8).data


def _check_kind(path: str) -> None:
    """Whether the name is free, or that of a file."""
    try:
        kind = kind_of(path, "standard output")
    except OSError:
        # Not there; what else it is shows when the file is created.
        return
    if kind:
        raise UserError(
            f"the output {path} is {kind}, expected the name of a file, "
            f"{' or '.join(SUFFIXES)}"
        )


def _check_place(path: str) -> None:
    """Whether a file can appear there, as far as looking tells."""
    _check_kind(path)
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise UserError(f"cannot write {path}: there is no folder {folder}")


def _check_vecs(distances: str, labels: str, ntotal: int) -> None:
    """Whether both files of a result can be what they are to be."""
    if ntotal > _MAX_INT32:
        raise UserError(
            f"{labels} holds labels as int32, too few bits for {ntotal} "
            "vectors: choose an output that ends in .npz"
        )
    if os.path.exists(distances) and not os.path.exists(labels):
        raise UserError(
            f"{distances}, where the distances would go, exists and belongs "
            f"to no older {labels}: choose another output"
        )


def _check_space(path: str, nbytes: int) -> None:
    """Whether the disk has room; some file systems do not tell."""
    folder = os.path.dirname(os.path.realpath(path))
    usage = shutil.disk_usage(folder)
    if usage.total and usage.free < nbytes:
        raise UserError(
            f"cannot write {path}: the result takes {nbytes} bytes, and "
            f"{folder} has {usage.free} left"
        )
