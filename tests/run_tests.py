#!/usr/bin/env python3
"""Run every test that this machine can run, and count them.

    tests/run_tests.py BUILD_DIR [--only NAME]...

Four suites: `sim` (C++ on the simulated CUDA runtime), `gpu` (the portable ones
of these on the real runtime; skipped where there is no GPU), `python` (the
package with its native part on the simulated runtime), `pure` (the package
without it, on a released CPU Faiss). Each reports in JUnit's format; the last
line adds them up. Exit status 1 if a test failed, or if a suite ran none.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Suite:
    """A command, its environment, and the reports that it leaves."""

    def __init__(self, name, command, environment, reports):
        self.name = name
        self.command = command
        self.environment = environment
        self.reports = reports

    def run(self):
        """Run it; returns the numbers of tests passed, failed and skipped."""
        print(f"==> {self.name}: {' '.join(map(str, self.command))}", flush=True)
        begin = time.monotonic()
        status = subprocess.run(
            # Not in the root, where `import faiss_ext` would find the sources.
            self.command, cwd=ROOT / "tests", env={**os.environ, **self.environment}
        ).returncode
        passed, failed, skipped = self._count()
        if status and not failed:
            failed = 1
            print(f"    {self.name} ended with status {status}")
        if passed + failed + skipped == 0:
            failed = 1
            print(f"    {self.name} ran no test")
        print(
            f"    {self.name}: {passed} passed, {failed} failed, "
            f"{skipped} skipped in {time.monotonic() - begin:.0f} s",
            flush=True,
        )
        return passed, failed, skipped

    def _count(self):
        passed = failed = skipped = 0
        for report in sorted(self.reports()):
            for case in ElementTree.parse(report).iter("testcase"):
                kinds = {child.tag for child in case}
                if kinds & {"failure", "error"}:
                    failed += 1
                elif "skipped" in kinds or case.get("status") == "notrun":
                    skipped += 1
                else:
                    passed += 1
        return passed, failed, skipped


def ctest(build, label):
    """The C++ tests with this label."""
    folder = build / "test_reports"
    return Suite(
        label,
        ["ctest", "--test-dir", build, "-L", f"^{label}$", "--output-on-failure",
         "--no-tests=error", "-j", str(os.cpu_count()), "--quiet"],
        {},
        lambda: folder.glob(f"{label}.*.xml"),
    )


def pytest(name, python, report, arguments, environment):
    """Python tests under one interpreter."""
    return Suite(
        name,
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         f"--junitxml={report}", *arguments],
        environment,
        lambda: [report] if report.exists() else [],
    )


def suites(build):
    """All suites, by name."""
    reports = build / "test_reports"
    simulator = build / "cuda_sim"
    native = os.pathsep.join(
        filter(None, [str(build / "python"), os.environ.get("FAISS_PYTHONPATH")])
    )
    tests = ROOT / "tests" / "python"
    return {
        suite.name: suite
        for suite in (
            ctest(build, "sim"),
            ctest(build, "gpu"),
            pytest(
                "python",
                os.environ.get("PYTHON", sys.executable),
                reports / "python.xml",
                [tests / "native"],
                {
                    "PYTHONPATH": native,
                    "LD_LIBRARY_PATH": str(simulator),
                    "LD_PRELOAD": str(simulator / "libcuda_sim_faiss.so"),
                    "FAISS_EXT_BUILD_DIR": str(build),
                },
            ),
            pytest(
                "pure",
                ROOT / ".cache/cpu-venv/bin/python",
                reports / "pure.xml",
                [tests, f"--ignore={tests / 'native'}"],
                {"PYTHONPATH": str(ROOT)},
            ),
        )
    }


def main():
    """Run the suites that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("--only", action="append", help="a suite by its name")
    options = parser.parse_args()
    reports = options.build / "test_reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    all_suites = suites(options.build)
    results = [all_suites[name].run() for name in options.only or all_suites]
    passed, failed, skipped = map(sum, zip(*results))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
