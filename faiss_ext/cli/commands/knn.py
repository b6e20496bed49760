"""Exact nearest neighbours of the vectors in a file.

Finds, for every vector in QUERY, the K nearest in BASE, and writes their
distances and labels (row numbers in BASE) to OUT. Files may be larger than
memory, except that BASE has to fit in the memory of the device.

BASE and QUERY: .npy (float32, float16, uint8, int8; others with --cast),
.fvecs, .bvecs, .fbin, .u8bin or .i8bin; they may be the same file.
OUT: .npz (arrays 'distances' and 'labels'), or .ivecs for the labels, with
the distances beside it in .fvecs.

Examples:
  faiss-ext knn --base base.fvecs --query query.fvecs -k 10 --out found.npz
  faiss-ext knn --base words.npy --query words.npy -k 5 --exclude-self \\
      --metric cosine --out similar.npz
  faiss-ext knn --base doubles.npy --query query.fvecs -k 100 --pad \\
      --cast --euclidean --device cpu --out found.ivecs
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

import numpy as np

import faiss_ext

from ...errors import UserError, VectorFileError, faiss_errors
from ..arguments import positive
from ..files.result_files import open_results, result_paths
from ..files.vector_files import VectorFile, open_vectors
from ..flat_index import FlatIndex, open_flat
from ..progress import progress
from ..report import Stopwatch, print_report

# Chunks are as large as still gives a sign of life every second or so, and
# within these bytes.
_CPU_PRODUCTS = 2 * 10**10
_GPU_PRODUCTS = 2 * 10**13
_QUERY_BYTES = 2**28
_CPU_BASE_BYTES = 2**26
# A GPU index copies itself whenever something is added.
_GPU_BASE_BYTES = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "--base", required=True, metavar="FILE", help="vectors to search in"
    )
    parser.add_argument(
        "--query", required=True, metavar="FILE", help="vectors to search for"
    )
    parser.add_argument(
        "-k",
        required=True,
        type=positive,
        metavar="K",
        help="neighbours for each query",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="where the result goes, .npz or .ivecs",
    )
    parser.add_argument(
        "--metric",
        choices=["l2", "ip", "cosine"],
        default="l2",
        help="l2: squared Euclidean distance, smallest first (default); "
        "ip: inner product, largest first; cosine: that of normalised "
        "vectors, where zeros have 0 with all",
    )
    parser.add_argument(
        "--euclidean",
        action="store_true",
        help="write Euclidean distances, the square roots of those of l2",
    )
    parser.add_argument(
        "--device",
        type=_device,
        default="auto",
        metavar="auto|cpu|N",
        help="N is the number of a GPU; auto (default) takes GPU 0 if there "
        "is one, else the CPU",
    )
    parser.add_argument(
        "--exclude-self",
        action="store_true",
        help="leave each vector out of its own neighbours; base and query "
        "must be the same file",
    )
    parser.add_argument(
        "--pad",
        action="store_true",
        help="take a K beyond the number of vectors; what is missing gets the "
        "label -1 and Faiss' largest distance (smallest inner product)",
    )
    parser.add_argument(
        "--cast",
        action="store_true",
        help="take .npy files of float64, wider integers and bool too, each "
        "number as the nearest float32",
    )
    parser.add_argument(
        "--nan",
        choices=["refuse", "allow"],
        default="refuse",
        help="vectors with NaN end the job (default), or are never a "
        "neighbour and have none (label -1); infinity is always allowed",
    )
    parser.add_argument(
        "--chunk",
        type=positive,
        metavar="ROWS",
        help="queries to read, search and write at once (default: chosen)",
    )


def run(args: argparse.Namespace) -> int:
    """Do the job.

    The queries are checked before anything is searched, at the price of
    reading them twice, and the output is opened before anything is read.

    Raises
    ------
    UserError
        Whatever is wrong with the files, the arguments or the device.
    OSError
        A file cannot be opened or read.
    """
    watch = Stopwatch("preparing", "reading", "adding", "searching", "writing")
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(open_vectors(args.base, args.cast))
        query = stack.enter_context(open_vectors(args.query, args.cast))
        same = os.path.samefile(args.base, args.query)
        _check(args, base, query, same)

        k = args.k + args.exclude_self
        with watch("preparing"):
            flat = open_flat(args.device, base.d, args.metric, k)
        _note(f"searching on the {flat.device} ({flat.why})")
        out = stack.enter_context(
            open_results(args.out, query.n, args.k, base.n)
        )
        allow_nan = args.nan == "allow"
        if not same:
            _read_through(query, allow_nan, watch)
        _add(flat, base, allow_nan, watch)
        rows = args.chunk or _query_rows(base, k, flat.on_gpu)
        with progress("searching", query.n, "queries") as advance:
            for start, x in watch.each("reading", query.chunks(rows)):
                with watch("searching"), faiss_errors("the search failed"):
                    distances, labels = flat.search(x, k)
                if args.exclude_self:
                    own = np.arange(start, start + len(x))
                    distances, labels = _without(own, distances, labels)
                if args.euclidean:
                    distances = _roots(distances, labels)
                with watch("writing"):
                    out.write(distances, labels)
                advance(len(x))
        with watch("writing"):
            stack.close()
    print_report(watch, flat, base, query, args)
    return 0


def _check(
    args: argparse.Namespace, base: VectorFile, query: VectorFile, same: bool
) -> None:
    """What the headers and names tell."""
    if base.n == 0:
        raise VectorFileError(f"{args.base} holds no vectors to search in")
    if base.d != query.d:
        raise VectorFileError(
            f"{args.base} has {base.d} dimensions and {args.query} has "
            f"{query.d}, expected the same"
        )
    if args.exclude_self and not same:
        raise UserError(
            "--exclude-self wants --base and --query to be the same file, "
            f"found {args.base} and {args.query}"
        )
    if args.euclidean and args.metric != "l2":
        raise UserError(
            f"--euclidean is for --metric l2, found --metric {args.metric}"
        )
    there = base.n - args.exclude_self
    if args.k > there and not args.pad:
        others = "others" if args.exclude_self else "vectors"
        raise UserError(
            f"-k {args.k} is more than the {there} {others} in {args.base}: "
            "give a smaller one, or --pad, with which what is missing gets "
            "the label -1"
        )
    for path in result_paths(args.out):
        for source in (args.base, args.query):
            if os.path.exists(path) and os.path.samefile(path, source):
                raise UserError(
                    f"the output {path} would replace the input {source}"
                )


def _read_through(file: VectorFile, allow_nan: bool, watch: Stopwatch) -> None:
    """Read a file for its errors alone."""
    with progress("checking", file.n, "queries") as advance:
        for start, x in watch.each(
            "reading", file.chunks(_rows(_QUERY_BYTES, 8 * file.d))
        ):
            if not allow_nan:
                _refuse_nan(file, start, x)
            advance(len(x))


def _add(
    flat: FlatIndex, base: VectorFile, allow_nan: bool, watch: Stopwatch
) -> None:
    """Put all vectors of the base into the index."""
    limit = _GPU_BASE_BYTES if flat.on_gpu else _CPU_BASE_BYTES
    cannot = f"cannot hold {base.n} vectors of {base.d} dimensions"
    if not flat.on_gpu:
        with watch("adding"), faiss_errors(cannot):
            _reserve(flat.index, base)
    with progress("adding", base.n, "vectors") as advance:
        for start, x in watch.each(
            "reading", base.chunks(_rows(limit, 4 * base.d))
        ):
            if not allow_nan:
                _refuse_nan(base, start, x)
            with watch("adding"), faiss_errors(cannot):
                flat.add(x)
            advance(len(x))


def _reserve(index: faiss_ext.IndexFlat, base: VectorFile) -> None:
    """Get the memory for all vectors, before any of them is read.

    Too little is told at once then, and nothing is moved as the index grows.
    Shrinking a vector keeps its memory.
    """
    index.codes.resize(base.n * index.code_size)
    index.codes.resize(0)


def _refuse_nan(file: VectorFile, start: int, x: np.ndarray) -> None:
    """Raise for the first row with a NaN."""
    if file.dtype.kind != "f":
        return
    # The minimum of anything with a NaN is NaN: one pass, no array.
    with np.errstate(invalid="ignore"):
        if x.size == 0 or not np.isnan(x.min()):
            return
    row = start + int(np.argmax(np.isnan(x).any(axis=1)))
    raise VectorFileError(
        f"{file.path} has a NaN in row {row}: fix the file, or see --nan"
    )


def _without(
    own: np.ndarray, distances: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Take each query's own label out of its results.

    Where duplicates or rounding pushed it out of the results, the last one
    goes instead.

    Parameters
    ----------
    own : numpy.ndarray
        int64, shape [m].
    distances, labels : numpy.ndarray
        Shape [m, k + 1].

    Returns
    -------
    tuple of numpy.ndarray
        Distances and labels of shape [m, k].
    """
    drop = labels == own[:, None]
    drop[~drop.any(axis=1), -1] = True
    shape = (labels.shape[0], labels.shape[1] - 1)
    return distances[~drop].reshape(shape), labels[~drop].reshape(shape)


def _roots(distances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Square roots of L2 distances; what stands where there is no neighbour
    stays. Rounding may make a distance of nothing less than that."""
    roots = np.sqrt(np.maximum(distances, 0))
    return np.where(labels < 0, distances, roots)


def _query_rows(base: VectorFile, k: int, on_gpu: bool) -> int:
    """Queries to search at once."""
    products = _GPU_PRODUCTS if on_gpu else _CPU_PRODUCTS
    by_work = max(256, products // (base.n * base.d))
    # The row as read and as float32; the results, and those without self.
    return min(by_work, _rows(_QUERY_BYTES, 8 * base.d + 24 * k))


def _rows(nbytes: int, row_bytes: int) -> int:
    return max(1, nbytes // row_bytes)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _device(text: str) -> str | int:
    if text in ("auto", "cpu"):
        return text
    if text.isascii() and text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(
        f"expected auto, cpu or the number of a GPU, got '{text}'"
    )
