#!/usr/bin/env python3
"""Faiss' own Python tests of GPU indexes, with stock Faiss and with ours.

    tests/faiss_tests.py [--seconds S] BUILD_DIR [FILE]...
    tests/faiss_tests.py [--seconds S] --gpu --sources FOLDER [FILE]...

The files are in the source package of the Faiss that is built, or in FOLDER,
Faiss' sources of the version that is installed; by default those that use flat
indexes, with --gpu all. Every test runs in a process of its own, once as it is
and once through `python -m faiss_ext run`: on the simulated runtime, or with
--gpu on this machine's GPU and with the packages that this Python has. Prints,
for each file, how many pass, how many skip themselves, and which have not ended
after S seconds; and every test that passes or skips itself with stock Faiss but not
with ours, which is what must not be: exit status 1.

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


def on_gpu(helpers):
    """The surroundings of a Python process on this machine's GPU, and the folder
    of modules that Faiss' tests share."""
    return {
        # As many tests run at a time as there are cores.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            filter(None, [os.environ.get("PYTHONPATH"), str(helpers)])),
    }


def on_simulator(build, helpers):
    """The same on the simulator, with both packages of a build."""
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


def outcome(python, folder, env, prefix, test, seconds):
    """How one test ends in a process of its own: "passed", "skipped" by itself,
    "failed", or "not ended"."""
    try:
        done = subprocess.run(
            [python, *prefix, "unittest", test],
            cwd=folder, env=env, timeout=seconds, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
    except subprocess.TimeoutExpired:
        return "not ended"
    # Some Pythons end with an error where no test ran.
    if "(skipped=1)" in done.stderr:
        return "skipped"
    return "failed" if done.returncode else "passed"


def main():
    """Run both, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", action="store_true",
                        help="on this machine's GPU, with what this Python has")
    parser.add_argument("--sources", type=lambda p: pathlib.Path(p).resolve(),
                        metavar="FOLDER", help="Faiss' sources")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S",
                        help=f"how long a test may take (default {SECONDS})")
    parser.add_argument("names", nargs="*", metavar="BUILD_DIR, FILE")
    options = parser.parse_args()
    names = options.names
    if not options.gpu:
        if not names:
            parser.error("name the build folder, or give --gpu")
        build = pathlib.Path(names.pop(0)).resolve()
    sources = options.sources
    if sources is None:
        built = sorted((CACHE / "faiss_ext/work").glob("faiss-*/faiss/gpu/test"))
        if not built:
            print("error: no source package of Faiss in the cache. Fix: rm -rf "
                  "the cache folder and run 'make setup', or give --sources",
                  file=sys.stderr)
            return 2
        sources = built[-1].parents[2]
    folder = sources / "faiss/gpu/test"
    if options.gpu:
        python = sys.executable
        env = on_gpu(sources / "tests")
        files = names or sorted(path.name for path in folder.glob("test_*.py"))
    else:
        python = os.environ.get("FAISS_EXT_PYTHON", sys.executable)
        env = on_simulator(build, sources / "tests")
        files = names or FILES
    lost = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for file in files:
            module = pathlib.Path(file).stem
            listed = subprocess.run(
                [python, "-c", LIST, module], cwd=folder, env=env,
                capture_output=True, text=True,
            )
            tests = listed.stdout.split()
            counts = []
            for prefix in (["-m"], ["-m", "faiss_ext", "run", "-m"]):
                counts.append(list(pool.map(
                    lambda test: outcome(
                        python, folder, env, prefix, test, options.seconds), tests
                )))
            stock, ours = counts
            print(f"{file:30} {len(tests):3} tests: {stock.count('passed'):3} pass with "
                  f"stock Faiss, {ours.count('passed'):3} with faiss_ext; "
                  f"{stock.count('skipped')} and {ours.count('skipped')} skip themselves",
                  flush=True)
            for whose, ends in (("stock Faiss", stock), ("faiss_ext", ours)):
                for test, end in zip(tests, ends):
                    if end == "not ended":
                        print(f"    not ended in {options.seconds:g} s with {whose}: "
                              f"{test}", flush=True)
            lost += [t for t, s, o in zip(tests, stock, ours)
                     if s != o and s in ("passed", "skipped")]
    for test in lost:
        print(f"passes, or skips itself, with stock Faiss only: {test}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
