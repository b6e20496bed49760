#!/usr/bin/env python3
"""Leave out each wait, record, lock and keep-alive of gpu/, one at a time, and see
the tests fail.

    tests/mutation/run.py WORK_DIR [--only PATTERN] [--kind KIND] [--list] [--again]

All mutants are in one build: a copy of the tree in WORK_DIR in which each can be
switched off (find_mutants.py), compiled twice, plainly and for ThreadSanitizer.
Each mutant is tried on the tests that come by it, the fastest first, until one
fails; several mutants at a time. A test that does not end has failed only if it
ends soon without the mutant, right afterwards: the machine may be busy. What a test comes by is noted when it is first
needed, in a run without a mutant.

Prints a line for each mutant, `mutants killed: K/N` and the survivors; exit
status 1 if there is one that equivalent.txt does not explain. What was found
stays in WORK_DIR: a run that is ended goes on where it was, as long as the tree
is the same (--again forgets it). `make mutation` calls this.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time

import find_mutants

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EQUIVALENT = HERE / "equivalent.txt"
JOBS = int(os.environ.get("JOBS", os.cpu_count() or 1))
#: What is said of a test that was ended.
ENDLESS = "does not end"
#: How often its limit is raised before that.
RAISED = 6


def all_mutants(folder):
    """Every mutant of the sources in a folder."""
    return [
        mutant
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".h", ".cpp")
        for mutant in find_mutants.find(
            str(path.relative_to(folder)), path.read_text())
    ]


def write_switchable(origin, copy, mutants):
    """Writes the sources of a folder with the mutants, numbered from 1."""
    shutil.copy(HERE / "Mutants.h", copy / "Mutants.h")
    for path in {mutant.path for mutant in mutants}:
        mine = [(i, m) for i, m in enumerate(mutants, 1) if m.path == path]
        write_if_other(
            copy / path,
            f'#include "{copy / "Mutants.h"}"\n#line 1 "{path}"\n'
            + find_mutants.switchable(
                (origin / path).read_text(),
                [m for _, m in mine],
                [i for i, _ in mine],
            ),
        )


def write_if_other(path, text):
    """Keeps the time of a file that is the same, for the build."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


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


@dataclasses.dataclass
class Test:
    """A command that fails when it notices a mutant."""

    name: str
    command: list
    folder: pathlib.Path
    environment: dict = dataclasses.field(default_factory=dict)
    #: How long it may take; a mutant may make it endless.
    limit: float = 600
    #: The numbers of the mutants that it comes by; None: not known yet.
    reached: set | None = None
    #: Where to note these, and how many mutants there are.
    notes: pathlib.Path | None = None
    mutants: int = 0
    #: A test that comes by the same, and takes a part of the time.
    shorter: Test | None = None
    #: Why it fails without a mutant, or "".
    broken: str = ""
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def run(self, mutant=0, reached=""):
        """Why it failed, or ""."""
        environment = {
            **os.environ, **self.environment,
            "FAISS_EXT_MUTANT": str(mutant),
            "FAISS_EXT_MUTANTS_REACHED": str(reached),
        }
        process = subprocess.Popen(
            list(map(str, self.command)), cwd=self.folder, env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Ended with all it started.
            start_new_session=True,
        )
        output = Output(process.stdout)
        ended = True
        try:
            process.wait(self.limit)
        except subprocess.TimeoutExpired:
            ended = False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
        said = why(output.text())
        if not ended:
            return f"{ENDLESS}; {said}"
        return said or f"status {process.returncode}" if process.returncode else ""

    def ends_in_time(self):
        """Whether it takes a small part of its limit now, without a mutant. Else
        the machine is busy, and the limit becomes a longer one."""
        begin = time.monotonic()
        failure = self.run()
        if not failure and time.monotonic() - begin < self.limit / 4:
            return True
        self.limit *= 2
        return False

    def comes_by(self, mutant):
        """Whether it executes what the mutant leaves out."""
        if self.shorter:
            return self.shorter.comes_by(mutant)
        with self.lock:
            if self.reached is None:
                self.measure()
            return mutant in self.reached

    def measure(self):
        """Notes what it comes by and how long it takes, without a mutant."""
        reached = self.notes / f"{re.sub(r'[^A-Za-z0-9]+', '_', self.name)}.reached"
        reached.write_bytes(bytes(self.mutants + 1))
        begin = time.monotonic()
        failure = self.run(reached=reached)
        self.limit = 20 + 10 * (time.monotonic() - begin)
        self.reached = {i for i, byte in enumerate(reached.read_bytes()) if byte}
        if failure:
            # It could tell nothing.
            self.reached = set()
            self.broken = failure
            print(f"fails without a mutant: {self.name}: {failure}", flush=True)


class Output:
    """The beginning and the end of what a test prints: a mutant may make it print
    for as long as it runs."""

    #: Bytes of each.
    KEPT = 1 << 16

    def __init__(self, pipe):
        self.kept = [b"", b""]
        self.reader = threading.Thread(target=self.read, args=(pipe,))
        self.reader.start()

    def read(self, pipe):
        """All there is, so that the test is not held up."""
        with pipe:
            self.kept[0] = pipe.read(self.KEPT)
            while said := pipe.read1(self.KEPT):
                self.kept[1] = (self.kept[1] + said)[-self.KEPT:]

    def text(self):
        """What was kept, of a test that has ended with all it started."""
        self.reader.join()
        return b"".join(self.kept).decode(errors="replace")


def why(output):
    """What of a test's output tells which one failed, and how."""
    for pattern, which in (
        (r"^\[  FAILED  \] (\S+)", 0), (r"(terminate called .*)", 0),
        (r"(ThreadSanitizer: [^(\n]+)", 0), (r"^replay: \S+ (.*)", 0),
        (r"^\[ RUN      \] (\S+)", -1), (r"^(?!Running main)(\S.*)", 0),
    ):
        found = re.findall(pattern, output, re.MULTILINE)
        if found:
            return found[which].strip()[:100]
    return ""


class Tree:
    """A copy of the tree with its mutants, and two builds of it."""

    def __init__(self, work, mutants):
        self.source = work / "tree"
        self.plain = work / "plain"
        self.tsan = work / "tsan"
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout.split("\n")
        wanted = {name for name in listed if name and (ROOT / name).is_file()}
        switched = {f"gpu/{mutant.path}" for mutant in mutants}
        digest = hashlib.sha256()
        for name in sorted(wanted):
            content = (ROOT / name).read_bytes()
            if re.match(r"(gpu|tests/(cpp|cuda_sim|mutation))/", name):
                digest.update(name.encode() + b"\0" + content + b"\0")
            copy = self.source / name
            if name not in switched and (
                not copy.exists() or copy.read_bytes() != content
            ):
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, copy)
        for copy in self.source.rglob("*"):
            name = str(copy.relative_to(self.source))
            if copy.is_file() and name not in wanted and name != "gpu/Mutants.h":
                copy.unlink()
        write_switchable(ROOT / "gpu", self.source / "gpu", mutants)
        #: Of all that decides what a test finds.
        self.digest = digest.hexdigest()

    def configure(self, folder, flags):
        """Set up a build of the tree."""
        launcher = shutil.which("ccache")
        run_or_exit([
            "cmake", "-S", self.source, "-B", folder, "-G", "Ninja",
            "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g1",
            f"-DCMAKE_CXX_FLAGS={flags}", "-DFAISS_EXT_BUILD_PYTHON=OFF",
            # On the simulator no kernel runs.
            "-DCMAKE_CUDA_ARCHITECTURES=90",
            f"-DCMAKE_PREFIX_PATH={os.environ.get('FAISS_PREFIX', '')}",
            *([f"-DCMAKE_CXX_COMPILER_LAUNCHER={launcher}"] if launcher else []),
        ])

    def build(self):
        """Compile what the tests need."""
        self.configure(self.plain, "")
        self.configure(self.tsan, "-fsanitize=thread")
        names = [test.name for test in self.unit_tests()]
        for folder, targets in ((self.plain, [*names, "scenarios"]),
                                (self.tsan, THREAD_TESTS)):
            run_or_exit(["cmake", "--build", folder, "-j", JOBS, "--target", *targets])

    def unit_tests(self):
        """The test programs that CMake knows, with their surroundings."""
        shown = subprocess.run(
            ["ctest", "--test-dir", self.plain, "--show-only=json-v1", "-L", "^sim$"],
            check=True, capture_output=True, text=True,
        ).stdout
        tests = []
        for test in json.loads(shown)["tests"]:
            # Not those of the simulator, nor the scenarios, which come apart.
            name = re.fullmatch(r"sim\.(\w+_test)", test["name"])
            if not name:
                continue
            properties = {p["name"]: p["value"] for p in test["properties"]}
            tests.append(Test(
                name.group(1),
                [self.plain / "tests" / name.group(1), "--gtest_fail_fast",
                 "--gtest_brief=1"],
                self.plain / "tests",
                dict(one.split("=", 1) for one in properties.get("ENVIRONMENT", [])),
            ))
        return tests

    def tests(self):
        """Of each sort the tests: programs, scenarios, programs under
        ThreadSanitizer, sweeps of faults, scenarios under many seeds."""
        programs = self.plain / "tests"
        scenarios = programs / "scenarios"
        names = subprocess.run(
            [scenarios, "--list"], check=True, capture_output=True, text=True
        ).stdout.split()

        def scenario(name, *options):
            return [scenarios, f"--gtest_filter=*.{name}", "--gtest_brief=1", *options]

        few = [Test(f"scenario {name}", scenario(name, "--seeds=8"), programs)
               for name in names]
        faults = [Test(f"faults of {name}", scenario(name, "--faults"), programs)
                  for name in names]
        many = [Test(f"{test.name}, 200 seeds", scenario(name), programs,
                     shorter=test)
                for test, name in zip(few, names)]
        threads = [
            Test(f"{name} under ThreadSanitizer",
                 [self.tsan / "tests" / name, "--gtest_fail_fast",
                  f"--gtest_filter={tests}"],
                 self.tsan / "tests",
                 {"TSAN_OPTIONS": "halt_on_error=1 suppressions="
                  f"{self.source}/tests/tsan.supp"})
            for name, tests in THREAD_TESTS.items()
        ]
        return self.unit_tests(), few, threads, faults, many


# Programs of tests/CMakeLists.txt with several threads, and which of their
# tests.
THREAD_TESTS = {
    "copy_team_test": "*many_callers*:*take_part*:*ahead*",
    "host_copies_test": "*",
    "pinned_blocks_test": "*threads*",
    "pinned_buffer_pool_test": "*",
    "pooled_resources_test": "*threads*",
    "resources_lock_test": "*",
    "search_batcher_test": "*",
    "ordering_test": "*threads*:*at_once*",
}


def run_or_exit(command):
    """Run a command of the build."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{done.stdout[-6000:]}{done.stderr[-2000:]}\nfailed: {command}")


class Verdicts:
    """What was found so far, on disk: {mutant's name: [test, why]}; a survivor
    has no test. What was found on earlier trees tells which test to try first."""

    def __init__(self, path, digest, forget):
        self.path = path
        self.digest = digest
        self.found = {}
        self.killers = {}
        if path.exists():
            kept = json.loads(path.read_text())
            self.killers = kept.get("killers", {})
            self.learn(kept["found"])
            if kept["digest"] == digest and not forget:
                self.found = kept["found"]

    def learn(self, found):
        """Keep which tests notice a mutant."""
        self.killers |= {name: test for name, (test, _) in found.items() if test}

    def note(self, name, verdict):
        """Keep one."""
        self.found[name] = verdict
        self.learn({name: verdict})
        other = self.path.with_suffix(".new")
        other.write_text(json.dumps({
            "digest": self.digest, "found": self.found, "killers": self.killers,
        }))
        other.replace(self.path)


def judge(number, tests):
    """[test, why] of the first that fails with this mutant, or ["", ""]."""
    for test in tests:
        if not test.comes_by(number):
            continue
        failure = test.run(number)
        for _ in range(RAISED):
            if not failure.startswith(ENDLESS) or test.ends_in_time():
                break
            failure = test.run(number)
        else:
            # That proves nothing.
            failure = ""
        if failure:
            return [test.name, failure]
    return ["", ""]


def order(kind, unit, few, threads, faults, many):
    """The tests for a mutant of a kind, the likeliest first."""
    if kind == "lock":
        return [*unit, *threads, *few]
    return [*unit, *few, *faults, *threads, *many]


def judge_all(chosen, tests, verdicts):
    """Judges mutants, (number, mutant) each, and prints each verdict."""
    begin, lock, done = time.monotonic(), threading.Lock(), 0
    todo = [one for one in chosen if one[1].name() not in verdicts.found]

    def one(numbered):
        nonlocal done
        number, mutant = numbered
        killer = verdicts.killers.get(mutant.name())
        verdict = judge(number, sorted(
            order(mutant.kind, *tests), key=lambda test: test.name != killer
        ))
        with lock:
            done += 1
            verdicts.note(mutant.name(), verdict)
            left = (time.monotonic() - begin) / done * (len(todo) - done)
            print(
                f"{len(chosen) - len(todo) + done}/{len(chosen)} "
                f"gpu/{mutant.path}:{mutant.line} {mutant.kind}: {mutant.text[:80]}\n"
                f"    {' -- '.join(verdict) if verdict[0] else 'SURVIVED'}"
                f"  ({left:.0f} s left)",
                flush=True,
            )

    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for future in [pool.submit(one, numbered) for numbered in todo]:
            future.result()


def pattern(text):
    """A regular expression of the command line."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def main():
    """All mutants, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("--only", default="", metavar="PATTERN", type=pattern,
                        help="mutants in whose name this regular expression is"
                        " found, such as 'Margin|Rounding'")
    parser.add_argument("--kind", default="", help="mutants of this kind")
    parser.add_argument("--list", action="store_true", help="name the mutants")
    parser.add_argument("--again", action="store_true",
                        help="forget what was found before")
    options = parser.parse_args()
    mutants = all_mutants(ROOT / "gpu")
    known = equivalents()
    asked = [(i, m) for i, m in enumerate(mutants, 1)
             if re.search(options.only, m.name()) and options.kind in m.kind]
    if options.list:
        for number, mutant in asked:
            print(f"{number} gpu/{mutant.path}:{mutant.line}: {mutant.kind}: "
                  f"{mutant.name()}")
        return 0
    begin = time.monotonic()
    print(f"==> {len(mutants)} mutants; building them", flush=True)
    tree = Tree(options.work, mutants)
    tree.build()
    tests = tree.tests()
    notes = options.work / "reached"
    notes.mkdir(exist_ok=True)
    for test in (test for sort in tests for test in sort):
        test.notes, test.mutants = notes, len(mutants)
    verdicts = Verdicts(options.work / "verdicts.json", tree.digest, options.again)
    chosen = [(i, m) for i, m in asked if m.name() not in known]
    print(f"==> {len(chosen)} mutants ({time.monotonic() - begin:.0f} s so far)",
          flush=True)
    judge_all(chosen, tests, verdicts)
    survivors = [m for _, m in chosen if not verdicts.found[m.name()][0]]
    excused = [m for _, m in asked if m.name() in known]
    for title, some in (("equivalent, see tests/mutation/equivalent.txt", excused),
                        ("survivors", survivors)):
        if some:
            print(f"{title}:")
            for mutant in some:
                print(f"    gpu/{mutant.path}:{mutant.line}: {mutant.name()}")
    stale = set(known) - {mutant.name() for mutant in mutants}
    for name in sorted(stale):
        print(f"in equivalent.txt, but no mutant: {name}")
    print(f"mutants killed: {len(chosen) - len(survivors)}/{len(chosen)} "
          f"({len(excused)} equivalent) in {time.monotonic() - begin:.0f} s")
    failing = any(test.broken for sort in tests for test in sort)
    return 1 if survivors or stale or failing else 0


if __name__ == "__main__":
    sys.exit(main())
