#!/usr/bin/env python3
"""Faiss' own Python tests of GPU indexes, with stock Faiss and with ours.

    tests/faiss_tests.py BUILD_DIR [FILE]...

The files are in the source package of the Faiss that is built (by default
those that use flat indexes). Every test runs in a process of its own on the
simulated runtime, once as it is and once through `python -m faiss_ext run`.
Prints, for each file, how many pass; and every test that passes with stock
Faiss but not with ours, which is what must not be: exit status 1.

Many tests need kernels that the simulator does not have (inverted files, binary
indexes), and fail with both.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
CACHE = pathlib.Path(
    os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
)
FILES = ("test_gpu_basics.py", "test_gpu_index.py", "test_gpu_index_serialize.py",
         "test_contrib.py")
SECONDS = 120

LIST = """
import sys, unittest
def walk(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            walk(item)
        else:
            print(item.id())
walk(unittest.defaultTestLoader.loadTestsFromName(sys.argv[1]))
"""


def environment(build, helpers):
    """Of a Python process on the simulator that has both packages, and the
    folder of modules that Faiss' tests share."""
    simulator = build / "cuda_sim"
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(simulator),
        "LD_PRELOAD": str(simulator / "libcuda_sim_faiss.so"),
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(build / "python"),
                          os.environ.get("FAISS_PYTHONPATH"), str(helpers)])
        ),
        # Each test has a core; two run at a time.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def passes(python, folder, env, prefix, test):
    """Whether one test passes in a process of its own."""
    try:
        done = subprocess.run(
            [python, *prefix, "unittest", test],
            cwd=folder, env=env, timeout=SECONDS,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main():
    """Run both, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("files", nargs="*", default=FILES)
    options = parser.parse_args()
    python = os.environ.get("FAISS_EXT_PYTHON", sys.executable)
    sources = sorted((CACHE / "faiss_ext/work").glob("faiss-*/faiss/gpu/test"))
    if not sources:
        print("error: no source package of Faiss in the cache. Fix: rm -rf "
              "the cache folder and run 'make setup'", file=sys.stderr)
        return 2
    folder = sources[-1]
    env = environment(options.build, folder.parents[2] / "tests")
    lost = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for file in options.files:
            module = pathlib.Path(file).stem
            listed = subprocess.run(
                [python, "-c", LIST, module], cwd=folder, env=env,
                capture_output=True, text=True,
            )
            tests = listed.stdout.split()
            counts = []
            for prefix in (["-m"], ["-m", "faiss_ext", "run", "-m"]):
                counts.append(list(pool.map(
                    lambda test: passes(python, folder, env, prefix, test), tests
                )))
            stock, ours = counts
            print(f"{file:30} {len(tests):3} tests: {sum(stock):3} pass with "
                  f"stock Faiss, {sum(ours):3} with faiss_ext", flush=True)
            lost += [t for t, s, o in zip(tests, stock, ours) if s and not o]
    for test in lost:
        print(f"passes with stock Faiss only: {test}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
