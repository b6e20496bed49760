#!/usr/bin/env python3
"""Faiss' own scripts that use GPU flat indexes, with stock Faiss and with ours.

    tests/faiss_benchs.py BUILD_DIR [--gpu] [--faiss FOLDER] [SCRIPT]...

The scripts are in the source package of the Faiss that is built (or in FOLDER)
and run unmodified, once as they are and once through `python -m faiss_ext run`,
on data of the shape that they expect (benchs/synthetic_sift.py; made-up
digits). What they print must be the same, but for times, and they must end in
the same way; else the exit status is 1.

By default they run on the simulated runtime, on little data. The approximate
part of a script ends with an error there, with both: the learning vectors are
too few, and the simulator has no kernels of inverted files. With --gpu they run
on the GPU of this machine, on data of the size of SIFT1M.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import NamedTuple

import numpy as np

from faiss_tests import CACHE, ROOT, on_simulator

SECONDS = 1200
MASKED = "#"

# A time and its unit, or a rate.
_TIME = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)? ?(?=m?s\b)")

# kmeans_mnist.py looks for its data here; a program's files are redirected
# before it begins, since the script may not be changed.
MNIST = "/path/to/mnist/data"
REDIRECT = """
import builtins
_open = builtins.open
def open(name, *args, **options):
    if isinstance(name, str) and name.startswith({old!r}):
        name = {new!r} + name[len({old!r}):]
    return _open(name, *args, **options)
builtins.open = open
"""


class Script(NamedTuple):
    """A script, how it is run, and what it must print before it may fail."""

    path: str
    arguments: tuple[str, ...]
    needed: str
    #: Its shapes are its own, and too large for the simulator.
    only_on_gpu: bool = False
    #: It fails by itself, with any Faiss, from this NumPy on.
    numpy_below: tuple[int, int] = (999, 0)


SCRIPTS = (
    Script(
        "benchs/bench_gpu_sift1m.py", (),
        rf"(?m)^k=1024 {MASKED}ms, R@1 1\.0000$",
    ),
    Script(
        "benchs/kmeans_mnist.py", ("10", "1"),
        # Then it asks for what Faiss has no more.
        rf"(?m)^ *Iteration 19 \({MASKED}s, search {MASKED}s\): objective=",
        # int() of an array with one element.
        numpy_below=(2, 4),
    ),
    Script("tutorial/python/4-GPU.py", (), r"\A100000\n(?s:.*)\]\]", True),
    Script("tutorial/python/5-Multiple-GPUs.py", (), r"(?s)\n100000\n.*\]\]", True),
)


class Outcome(NamedTuple):
    """What a script printed, how it ended, and its last words if it failed."""

    output: str
    status: int
    failure: str


def write_data(folder, python, env, large):
    """The data of all scripts: SIFT1M's, or a five-hundredth of it."""
    sizes = (
        ()
        if large
        else ("--base", "2000", "--query", "50", "--learn", "100")
    )
    subprocess.run(
        [python, ROOT / "benchs/synthetic_sift.py", folder / "sift1M", *sizes],
        env=env, check=True,
    )
    images = 60_000 if large else 500
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 200, (40, 28, 28), dtype="uint8")
    digits = centres[rng.integers(0, 40, images)]
    digits += rng.integers(0, 56, digits.shape, dtype="uint8")
    mnist = folder / "mnist"
    (folder / "mnistmnist8m").mkdir()
    with open(folder / "mnistmnist8m/mnist8m-patterns-idx3-ubyte", "wb") as file:
        file.write(np.array([0x803, images, 28, 28], ">i4").tobytes())
        file.write(digits.tobytes())
    redirect = folder / "redirect"
    redirect.mkdir()
    (redirect / "sitecustomize.py").write_text(
        REDIRECT.format(old=MNIST, new=str(mnist))
    )
    return redirect


def run(command, folder, env):
    """Run a script to its end. Where our part is missing, there is nothing to
    compare."""
    done = subprocess.run(
        command, cwd=folder, env=env, timeout=SECONDS, text=True,
        capture_output=True,
    )
    if "faiss_ext: Faiss runs as it is" in done.stderr:
        raise SystemExit(f"error: nothing to compare: {done.stderr.strip()}")
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    failure = lines[-1] if done.returncode and lines else ""
    return Outcome(done.stdout, done.returncode, failure)


def without_times(text):
    """The text with every time as a #."""
    return _TIME.sub(MASKED, text)


def differences(script, stock, ours):
    """What is wrong with a pair of outcomes, in a list."""
    found = []
    for whose, outcome in (("stock Faiss", stock), ("faiss_ext", ours)):
        if not re.search(script.needed, without_times(outcome.output)):
            found.append(f"with {whose} it ends too early")
    expected = without_times(stock.output).splitlines()
    printed = without_times(ours.output).splitlines()
    if expected != printed:
        line = next(
            (i for i, pair in enumerate(zip(expected, printed))
             if pair[0] != pair[1]),
            min(len(expected), len(printed)),
        )
        found.append(f"the outputs differ from line {line + 1} on")
    if stock.status != ours.status:
        found.append(
            f"it ends with status {stock.status} with stock Faiss and "
            f"{ours.status} with faiss_ext ({ours.failure})"
        )
    return found


def report(script, stock, ours, with_times):
    """Print what both print, and what differs; whether they agree."""
    left, right = stock.output.splitlines(), ours.output.splitlines()
    for i in range(max(len(left), len(right))):
        pair = [lines[i] if i < len(lines) else "" for lines in (left, right)]
        masked = [without_times(line) for line in pair]
        if masked[0] != masked[1]:
            print(f"    stock Faiss: {pair[0]}\n    faiss_ext:   {pair[1]}")
        elif not with_times:
            print(f"    {masked[0]}")
        elif pair[0] == masked[0]:
            print(f"    {pair[0]}")
        else:
            units = re.findall(rf"{MASKED}(m?s)\b", masked[0])
            times = map("".join, zip(_TIME.findall(pair[1]), units))
            print(f"    {pair[0]:58} faiss_ext: {', '.join(times)}")
    if stock.status == ours.status != 0:
        print(f"    both end here: ...{stock.failure[-110:]}")
    found = differences(script, stock, ours)
    for text in found or [f"the same {len(left)} lines"]:
        print(f"  = {text}", flush=True)
    return not found


def main():
    """Run all scripts with both, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--faiss", type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("scripts", nargs="*")
    options = parser.parse_args()
    python = os.environ.get("FAISS_EXT_PYTHON", sys.executable)
    sources = [options.faiss] if options.faiss else sorted(
        (CACHE / "faiss_ext/work").glob("faiss-*/")
    )
    if not sources:
        print("error: no source package of Faiss in the cache. Fix: rm -rf "
              "the cache folder and run 'make setup'", file=sys.stderr)
        return 2
    chosen = [
        script for script in SCRIPTS
        if script.path in options.scripts
        or (not options.scripts and (options.gpu or not script.only_on_gpu))
    ]
    unknown = set(options.scripts) - {script.path for script in SCRIPTS}
    if unknown:
        parser.error(f"no such script here: {', '.join(sorted(unknown))}")
    env = on_simulator(options.build, "")
    if options.gpu:
        for variable in ("LD_LIBRARY_PATH", "LD_PRELOAD", "OMP_NUM_THREADS",
                         "OPENBLAS_NUM_THREADS"):
            del env[variable]
            if variable in os.environ:
                env[variable] = os.environ[variable]
    # What C++ prints comes between the lines of Python where it belongs.
    env["PYTHONUNBUFFERED"] = "1"
    numpy_version = tuple(map(int, np.__version__.split(".")[:2]))
    agree = True
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        redirect = write_data(folder, python, env, options.gpu)
        env["PYTHONPATH"] = os.pathsep.join([str(redirect), env["PYTHONPATH"]])
        for script in chosen:
            print(f"==> {script.path} {' '.join(script.arguments)}".rstrip())
            if numpy_version >= script.numpy_below:
                print(f"    skipped: it fails by itself with NumPy "
                      f"{np.__version__}")
                continue
            stock, ours = (
                run([python, *prefix, sources[-1] / script.path,
                     *script.arguments], folder, env)
                for prefix in ([], ["-m", "faiss_ext", "run"])
            )
            # Times of the simulator mean nothing.
            agree &= report(script, stock, ours, with_times=options.gpu)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
