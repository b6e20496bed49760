#!/usr/bin/env python3
"""Recognises handwritten digits by their nearest neighbours.

Takes the 1797 digits that come with scikit-learn, 8 x 8 pixels each, writes
one half of them as a base and the other as queries, and runs

    python -m faiss_ext knn --base base.fvecs --query query.npy -k 5 ...

on the two files. The five neighbours of each query then vote on which digit
it is. The result is a number, the share of votes that are right, and a
picture, `neighbours.png`. Below 95 % something is broken: exit status 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits

ROOT = pathlib.Path(__file__).resolve().parents[1]
if importlib.util.find_spec("faiss_ext") is None:
    sys.path.insert(0, str(ROOT))

from faiss_ext.cli.files.result_files import write_vecs  # noqa: E402
from neighbour_picture import draw  # noqa: E402

SEED = 1797
K = 5
GOAL = 0.95


class Half(NamedTuple):
    """Half of the digits.

    Attributes
    ----------
    images : numpy.ndarray
        float64, shape [n, 64], 0 (paper) to 16 (ink).
    digits : numpy.ndarray
        int64, shape [n], 0 to 9.
    """

    images: np.ndarray
    digits: np.ndarray


def main() -> int:
    """Do all of it; the exit status."""
    args = _arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    base, query = halves()
    distances, labels = search(base, query, args.out, args.device)
    found = base.digits[labels]
    share = (votes(found) == query.digits).mean()
    print(
        f"\n{100 * share:.1f} % of {len(query.digits)} digits recognised by "
        f"the vote of their {K} nearest neighbours among {len(base.digits)}"
    )
    picture = args.out / "neighbours.png"
    rows = [np.flatnonzero(query.digits == digit)[0] for digit in range(10)]
    draw(
        picture,
        title="Nearest neighbours of handwritten digits",
        subtitle=(
            f"{len(query.digits)} queries, {len(base.digits)} vectors of "
            f"{base.images.shape[1]} dimensions, k = {K}: "
            f"{100 * share:.1f} % of the votes are right"
        ),
        queries=[(query.images[row], query.digits[row]) for row in rows],
        neighbours=[
            list(zip(base.images[found], base.digits[found], near))
            for found, near in zip(labels[rows], np.sqrt(distances[rows]))
        ],
    )
    print(f"ten of them, with their neighbours: {picture}")
    if share <= GOAL:
        print(f"error: expected more than {100 * GOAL:.0f} %", file=sys.stderr)
        return 1
    return 0


def halves() -> tuple[Half, Half]:
    """The digits in two halves, shuffled the same way every time."""
    images, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(digits))
    first, second = np.array_split(order, 2)
    return (
        Half(images[first], digits[first]),
        Half(images[second], digits[second]),
    )


def search(
    base: Half, query: Half, folder: pathlib.Path, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Run the command on files in `folder`.

    Returns
    -------
    distances : numpy.ndarray
        float32, shape [queries, K].
    labels : numpy.ndarray
        int64, shape [queries, K]: numbers of images of the base.

    Raises
    ------
    SystemExit
        The command failed; with its status.
    """
    write_vecs(str(folder / "base.fvecs"), base.images)
    np.save(folder / "query.npy", query.images.astype(np.uint8))
    arguments = [
        *("-m", "faiss_ext", "knn", "--base", "base.fvecs"),
        *("--query", "query.npy", "-k", str(K), "--out", "neighbours.npz"),
        *("--device", device),
    ]
    print(f"{folder}$ python", *arguments, flush=True)
    # The package that this script found: not one in the folder it was called
    # in, which `python -m` would take first.
    path = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
    status = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
    ).returncode
    if status:  # it has told why
        sys.exit(status)
    with np.load(folder / "neighbours.npz") as result:
        return result["distances"], result["labels"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("demo"),
        metavar="FOLDER",
        help="where all files go (default: demo)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="auto (default), cpu or the number of a GPU",
    )
    return parser.parse_args()


def votes(found: np.ndarray) -> np.ndarray:
    """The most frequent digit of each row; of several, the nearest one."""
    counts = (found[:, :, None] == found[:, None, :]).sum(axis=2)
    return found[np.arange(len(found)), counts.argmax(axis=1)]


if __name__ == "__main__":
    sys.exit(main())
