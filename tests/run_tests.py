#!/usr/bin/env python3
"""Run every test that this machine can run, and count them.

    tests/run_tests.py BUILD_DIR [--only NAME]... [--installed]

Five suites: `sim` (C++ on the simulated CUDA runtime), `gpu` (the portable ones
of these on the real runtime; skipped where there is no GPU), `python` (the
package with its native part on the simulated runtime, what is the same without
it included), `libraries` (the tests with array libraries, with stand-ins for
them), `pure` (the package without its native part, on a released CPU Faiss, and
the tests of the mutation tool). Each reports in JUnit's format; the last line
adds them up. Exit status 1 if a test failed, or if a suite ran none.

With `--installed` the package is the one that FAISS_EXT_PYTHON has installed, and
not that of the build folder.
"""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Suite:
    """A command, its environment, and the JUnit report that it leaves."""

    def __init__(self, name, command, environment, report):
        self.name = name
        self.command = command
        self.environment = environment
        self.report = report

    def run(self):
        """Run it; returns the numbers of tests passed, failed and skipped."""
        print(f"==> {self.name}: {' '.join(map(str, self.command))}", flush=True)
        begin = time.monotonic()
        status = subprocess.run(
            self.command,
            # Not in the root, where `import faiss_ext` would find the sources.
            cwd=ROOT / "tests",
            env={**os.environ, **self.environment},
        ).returncode
        counts = collections.Counter()
        if self.report.exists():
            for case in ElementTree.parse(self.report).iter("testcase"):
                counts += outcomes(case)
        if not counts:
            print(f"    {self.name} ran no test")
            counts["failed"] = 1
        elif status and not counts["failed"]:
            print(f"    {self.name} ended with status {status}")
            counts["failed"] = 1
        print(
            f"    {self.name}: {summary(counts)} "
            f"in {time.monotonic() - begin:.0f} s",
            flush=True,
        )
        return counts


def outcomes(case):
    """How a reported test ended. One that is a GoogleTest program counts as
    the tests that it says it ran."""
    kinds = {child.tag for child in case}
    broken = bool(kinds & {"failure", "error"})
    counts = collections.Counter()
    for mark in re.findall(
        r"^\[ +(OK|FAILED|SKIPPED) +\] \S+ \(",
        case.findtext("system-out") or "",
        re.MULTILINE,
    ):
        counts[{"OK": "passed", "FAILED": "failed", "SKIPPED": "skipped"}[mark]] += 1
    if not counts:
        skipped = "skipped" in kinds or case.get("status") == "notrun"
        counts["failed" if broken else "skipped" if skipped else "passed"] = 1
    elif broken and not counts["failed"]:
        counts["failed"] = 1
    return counts


def summary(counts):
    """The counts in the words that a reader of the last line looks for."""
    return (
        f"{counts['passed']} passed, {counts['failed']} failed, "
        f"{counts['skipped']} skipped"
    )


def ctest(build, label):
    """The C++ tests with this label."""
    report = build / "test_reports" / f"{label}.xml"
    return Suite(
        label,
        ["ctest", "--test-dir", build, "-L", f"^{label}$", "--output-on-failure",
         "--no-tests=error", "-j", str(os.cpu_count()), "--quiet",
         "--output-junit", report, "--test-output-size-passed", "100000000",
         "--test-output-size-failed", "100000000"],
        {},
        report,
    )


def pytest(name, python, report, arguments, environment):
    """Python tests under one interpreter."""
    return Suite(
        name,
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         f"--junitxml={report}", *arguments],
        environment,
        report,
    )


def suites(build, installed=False):
    """All suites, by name."""
    reports = build / "test_reports"
    simulator = build / "cuda_sim"
    native = os.pathsep.join(
        filter(None, [
            None if installed else str(build / "python"),
            os.environ.get("FAISS_PYTHONPATH"),
        ])
    )
    tests = ROOT / "tests" / "python"
    python = os.environ.get("FAISS_EXT_PYTHON", sys.executable)
    on_simulator = {
        "PYTHONPATH": native,
        "LD_LIBRARY_PATH": str(simulator),
        "LD_PRELOAD": str(simulator / "libcuda_sim_faiss.so"),
        "FAISS_EXT_BUILD_DIR": str(build),
        "PYTHONFAULTHANDLER": "1",
    }
    return {
        suite.name: suite
        for suite in (
            ctest(build, "sim"),
            ctest(build, "gpu"),
            pytest("python", python, reports / "python.xml",
                   [tests / "native", tests / "test_every_machine.py",
                    tests / "test_types.py"],
                   on_simulator),
            pytest("libraries", python, reports / "libraries.xml",
                   [tests / "gpu_libraries"],
                   {**on_simulator, "FAISS_EXT_STAND_INS": "1",
                    "CUDA_SIM_DEVICES": "2"}),
            pytest(
                "pure",
                ROOT / ".cache/cpu-venv/bin/python",
                reports / "pure.xml",
                [tests, f"--ignore={tests / 'native'}",
                 f"--ignore={tests / 'gpu_libraries'}",
                 ROOT / "tests" / "mutation"],
                {"PYTHONPATH": str(ROOT)},
            ),
        )
    }


def main():
    """Run the suites that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("--only", action="append", help="a suite by its name")
    parser.add_argument("--installed", action="store_true",
                        help="test the package that the interpreter has installed")
    options = parser.parse_args()
    reports = options.build / "test_reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    all_suites = suites(options.build, options.installed)
    counts = sum(
        (all_suites[name].run() for name in options.only or all_suites),
        collections.Counter(),
    )
    print(summary(counts))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
