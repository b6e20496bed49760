#!/usr/bin/env python3
"""Take out each wait, record, lock and keep-alive of gpu/, one at a time, and see
the tests fail.

    tests/mutation/run.py WORK_DIR [--only TEXT] [--without KIND] [--list] [--seeds N]

Works on a copy of the tree in WORK_DIR, builds it once, then for each mutant
rebuilds what changed and runs the tests, the fastest first, until one fails.
Prints `mutants killed: K/N` and the survivors; exit status 1 if there is one
that tests/mutation/equivalent.txt does not explain. `make mutation` calls it.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time

import find_mutants

ROOT = pathlib.Path(__file__).resolve().parents[2]
EQUIVALENT = pathlib.Path(__file__).with_name("equivalent.txt")
# Scenarios that between them go every way that a failure can take.
FAULTS = ":".join(
    f"*.{name}" for name in (
        "blocking_search_in_one_tile", "blocking_search_in_tiles_of_five_rows",
        "pageable_queries_to_device_back_to_back_in_tiles", "a_pool_of_one_page",
        "destroyed_with_*", "blocks_grow_*", "reset_after_*", "copy_from_after_*",
        "an_index_on_the_other_gpu",
    )
)
# A run that a mutant makes endless is ended.
SECONDS = 600


def all_mutants():
    """Every mutant of gpu/, each once."""
    found = {}
    for path in sorted((ROOT / "gpu").glob("*")):
        if path.suffix not in (".h", ".cpp"):
            continue
        for mutant in find_mutants.find(path.name, path.read_text()):
            found.setdefault((path.name, mutant.begin, mutant.end), mutant)
    return list(found.values())


def equivalents():
    """The mutants that change nothing: {name: reason}. A line without indent
    names one; the indented lines after it say why."""
    reasons, name = {}, None
    lines = EQUIVALENT.read_text().splitlines() if EQUIVALENT.exists() else []
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace():
            reasons[name] = f"{reasons[name]} {line.strip()}".strip()
        else:
            name = line.strip()
            reasons[name] = ""
    return reasons


class Tree:
    """The copy that is changed and built."""

    def __init__(self, work):
        self.source = work / "tree"
        self.build = work / "build"
        self.log = work / "last.log"
        files = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout.split("\n")
        for name in filter(None, files):
            origin, copy = ROOT / name, self.source / name
            if not origin.is_file():
                continue
            # Keeps the time of what is the same, for the build.
            if not copy.exists() or copy.read_bytes() != origin.read_bytes():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(origin, copy)

    def run(self, command, **more):
        """Run a command; whether it succeeded. Its output is the log."""
        with open(self.log, "w") as log:
            # Ended with all it started.
            process = subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=log,
                start_new_session=True, **more,
            )
            try:
                return process.wait(SECONDS) == 0
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()
                return False

    def configure(self):
        """Set the build up; warnings are no errors, for a mutant has some."""
        launcher = shutil.which("ccache")
        return self.run([
            "cmake", "-S", self.source, "-B", self.build, "-G", "Ninja",
            "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0",
            "-DFAISS_EXT_BUILD_PYTHON=OFF",
            f"-DCMAKE_PREFIX_PATH={os.environ.get('FAISS_PREFIX', '')}",
            *([f"-DCMAKE_CXX_COMPILER_LAUNCHER={launcher}"] if launcher else []),
        ])

    def make(self, *targets):
        """Build."""
        return self.run(["cmake", "--build", self.build, "-j",
                         os.environ.get("JOBS", str(os.cpu_count())),
                         "--target", *targets])

    def why(self):
        """The line of the log that says most."""
        lines = self.log.read_text(errors="replace").splitlines()
        for word in ("error:", "replay:", "[  FAILED  ]", "(Failed)",
                     "(Timeout)", "SEGFAULT", "Subprocess aborted"):
            for line in lines:
                if word in line:
                    return line.strip()[:150]
        return lines[-1][:150] if lines else "no output"


def steps(tree, seeds):
    """What is run for each mutant, the fastest first: (name, targets,
    command)."""
    scenarios = tree.build / "tests" / "scenarios"
    ctest = ["ctest", "--test-dir", tree.build, "--output-on-failure",
             "--stop-on-failure", "--timeout", "60", "-E",
             "consumer|cuda_sim|conformance|headers"]
    return (
        ("scenarios", ["scenarios"],
         [scenarios, "--seeds=6", "--gtest_fail_fast", "--gtest_brief=1"]),
        ("tests", ["all"],
         [*ctest, "-L", "sim", "-E", "consumer|cuda_sim|conformance|scenarios"]),
        ("faults", [], [scenarios, "--faults", "--gtest_fail_fast",
                        f"--gtest_filter={FAULTS}"]),
        ("more seeds", [], [scenarios, f"--seeds={seeds}", "--gtest_fail_fast"]),
    )


def try_one(tree, mutant, seeds):
    """The name of the step that failed, "build", or "" for a survivor."""
    target = tree.source / "gpu" / mutant.path
    original = target.read_text()
    try:
        target.write_text(mutant.apply(original))
        for name, targets, command in steps(tree, seeds):
            if targets and not tree.make(*targets):
                return "build"
            if not tree.run(command, cwd=tree.build / "tests"):
                return name
        return ""
    finally:
        target.write_text(original)


def main():
    """All mutants, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("--only", default="", help="mutants whose name has this")
    parser.add_argument("--list", action="store_true", help="name the mutants")
    parser.add_argument("--without", action="append", default=[],
                        help="leave out a kind of mutants, such as lock")
    parser.add_argument("--seeds", type=int, default=200)
    options = parser.parse_args()
    mutants = [m for m in all_mutants()
               if options.only in m.name() and m.kind not in options.without]
    if options.list:
        for mutant in mutants:
            print(f"gpu/{mutant.path}:{mutant.line}: {mutant.kind}: {mutant.name()}")
        return 0
    begin = time.monotonic()
    tree = Tree(options.work)
    if not tree.configure() or not tree.make("all"):
        sys.exit(f"the unchanged tree does not build: {tree.log}")
    for _, _, command in steps(tree, 20):
        if not tree.run(command, cwd=tree.build / "tests"):
            sys.exit(f"the unchanged tree fails its tests: {tree.log}")
    known = equivalents()
    killed, survivors, excused, broken = 0, [], [], []
    for number, mutant in enumerate(mutants, 1):
        if mutant.name() in known:
            excused.append(mutant)
            continue
        outcome = try_one(tree, mutant, options.seeds)
        if outcome == "build":
            broken.append(mutant)
        elif outcome:
            killed += 1
        else:
            survivors.append(mutant)
        print(f"{number}/{len(mutants)} gpu/{mutant.path}:{mutant.line} "
              f"{mutant.kind}: {mutant.text[:90]}\n    "
              + (f"{outcome}: {tree.why()}" if outcome else "SURVIVED"), flush=True)
    for title, some in (("not valid C++", broken),
                        ("equivalent, see tests/mutation/equivalent.txt", excused),
                        ("survivors", survivors)):
        if some:
            print(f"{title}:")
            for mutant in some:
                print(f"    gpu/{mutant.path}:{mutant.line}: {mutant.name()}")
    print(f"mutants killed: {killed}/{killed + len(survivors)} "
          f"({len(excused)} equivalent, {len(broken)} not valid C++) "
          f"in {time.monotonic() - begin:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
