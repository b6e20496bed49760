"""The demo: handwritten digits and their neighbours."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage
from sklearn.datasets import load_digits

from conftest import ROOT, package_environment

sys.path.insert(0, str(ROOT / "examples"))
from matplotlib import colors, image

import digits
import neighbour_picture


def frames(picture: np.ndarray, colour: str) -> int:
    """How many frames of this colour a picture has."""
    near = np.abs(picture[:, :, :3] - colors.to_rgb(colour)).max(axis=2) < 0.02
    boxes = ndimage.find_objects(ndimage.label(near)[0])
    sizes = [(box[0].stop - box[0].start, box[1].stop - box[1].start)
             for box in boxes]  # fmt: skip
    return sum(min(size) > 80 for size in sizes)


def test_digits_are_recognised_and_drawn():
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "digits.py", "--out", "a/demo"],
        env=package_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    share = float(re.search(r"\n([\d.]+) % of 898 digits", done.stdout)[1])

    base, query = digits.halves()
    difference = query.images[:, None] - base.images[None]
    distances = (difference**2).sum(axis=2)
    nearest = np.sort(distances, axis=1)[:, :5]
    with np.load("a/demo/neighbours.npz") as result:
        labels = result["labels"]
        np.testing.assert_allclose(result["distances"], nearest, rtol=1e-4)
    found = np.take_along_axis(distances, labels, axis=1)
    np.testing.assert_array_equal(found, nearest)
    votes = digits.votes(base.digits[labels])
    assert share == round(100 * (votes == query.digits).mean(), 1) > 95

    picture = image.imread("a/demo/neighbours.png")
    rows = [list(query.digits).index(digit) for digit in range(10)]
    right = base.digits[labels[rows]] == np.arange(10)[:, None]
    assert frames(picture, neighbour_picture._GREEN) == right.sum()
    assert frames(picture, neighbour_picture._RED) == (~right).sum()
    assert frames(picture, neighbour_picture._INK) == 10


def test_the_package_is_the_one_on_the_path_and_not_in_the_folder(tmp_path):
    (tmp_path / "faiss_ext").mkdir()
    (tmp_path / "faiss_ext" / "__init__.py").write_text("raise SystemExit(9)")
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "digits.py"],
        env=package_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_command_that_fails_is_no_traceback():
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "digits.py", "--device", "999"],
        env=package_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: GPU 999 cannot be used")
    assert len(done.stderr.splitlines()) == 1


def test_the_halves_are_all_digits_once_and_the_same_every_time():
    images = load_digits().data
    once = np.concatenate([half.images for half in digits.halves()])
    assert sorted(map(tuple, once)) == sorted(map(tuple, images))
    again = np.concatenate([half.images for half in digits.halves()])
    np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize(
    "row, winner",
    [
        ([7, 7, 7, 7, 7], 7),
        ([1, 2, 2, 3, 4], 2),
        ([5, 4, 4, 5, 9], 5),
        ([9, 4, 5, 5, 4], 4),
        ([3, 0, 1, 2, 8], 3),
    ],
)
def test_the_most_frequent_digit_wins_and_of_several_the_nearest(row, winner):
    assert digits.votes(np.array([row])).tolist() == [winner]


def test_too_few_right_votes_are_an_error(monkeypatch, capsys):
    def wrong(base, query, folder, device):
        labels = np.zeros((len(query.digits), 5), np.int64)
        return labels.astype(np.float32), labels

    monkeypatch.setattr(digits, "search", wrong)
    monkeypatch.setattr(sys, "argv", ["digits.py"])
    assert digits.main() == 1
    assert "expected more than 95 %" in capsys.readouterr().err
    assert pathlib.Path("demo/neighbours.png").exists()
