"""The parts of the validation: each runs some commands within its time limit and
says in a word and a line how it went."""

import os
import re
import signal
import subprocess
import time

from host import BUNDLE, MANIFEST

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"

#: Seconds. Together less than 9 minutes.
LIMITS = {
    "host": 15,
    "conformance": 25,
    "cpp": 120,
    "python": 75,
    "memcheck": 40,
    "racecheck": 40,
    "initcheck": 40,
    "profile": 40,
    "benchmarks": 140,
}
#: What benchmarks take beyond their budget: start, ceilings, the case under way.
BENCHMARK_MARGIN = 40

#: Tests for compute-sanitizer, which makes them many times slower.
SANITIZED = (
    "search_test",
    "--gtest_filter=SearchTest.one_query:"
    "SearchTest.duplicates_are_all_found:"
    "SearchTest.assign_gives_the_labels_of_search",
)


class Part:
    """One part under way: its host, its log, its deadline."""

    def __init__(self, name, host, folder, limit, benchmarks=()):
        """`benchmarks`: arguments of benchs/run.py that tell which."""
        self.name, self.host, self.folder = name, host, folder
        self.limit, self.benchmarks = limit, benchmarks
        self.deadline = time.monotonic() + limit
        self.log = folder / (name + ".log")
        self.log.write_text("")

    def run(self, *command, python=False):
        """Run to its end or to the deadline; (status, output). Status None: it
        was ended for time; 127: it did not start."""
        with open(self.log, "a") as log:
            log.write("$ %s\n" % " ".join(map(str, command)))
            log.flush()
            start = self.log.stat().st_size
            try:
                process = subprocess.Popen(
                    [str(word) for word in command],
                    stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                    cwd=str(self.folder), env=self.host.environment(python),
                    start_new_session=True,
                )
            except OSError as error:
                log.write("%s\n" % error)
                return 127, str(error)
            try:
                status = process.wait(max(self.deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                status = None
                # All of them: a sanitizer runs the program in a process of its own.
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        with open(self.log, "rb") as log:
            log.seek(start)
            text = log.read().decode(errors="replace")
        return status, text

    def late(self):
        return FAILED, "time limit of %d s" % self.limit


def host_part(part):
    """What there is."""
    lines = list(part.host.describe())
    part.log.write_text("\n".join(lines) + "\n")
    print("\n".join("    " + line for line in lines), flush=True)
    if not part.host.simulated:
        part.run("nvidia-smi")
    missing = [line for line in lines if line.startswith("missing")]
    if missing and part.host.has_device:
        return FAILED, "%d libraries missing, see %s" % (len(missing), part.log.name)
    return PASSED, part.host.gpus[0] if part.host.gpus else (
        "simulated" if part.host.simulated else "no GPU"
    )


def conformance(part):
    """That CUDA keeps the rules that the simulator was written by."""
    return _googletest(part, ["cuda_conformance"], "--gtest_filter=-Misuse.*")


def cpp(part):
    """Every C++ test that runs on a GPU."""
    programs = [name for name in MANIFEST["programs"] if name != "cuda_conformance"]
    return _googletest(part, programs)


def _googletest(part, programs, *arguments):
    passed = skipped = 0
    failures, reasons = [], []
    for program in programs:
        status, text = part.run(BUNDLE / "tests/bin" / program, *arguments)
        passed += len(re.findall(r"^\[ +OK +\] ", text, re.MULTILINE))
        skipped += len(re.findall(r"^\[ +SKIPPED +\] \S+ \(", text, re.MULTILINE))
        reasons += re.findall(r": Skipped\n(.+)$", text, re.MULTILINE)
        if status is None:
            failures.append("%s: time limit of %d s" % (program, part.limit))
            break
        if status != 0:
            named = re.findall(r"^\[ +FAILED +\] (\S+) \(", text, re.MULTILINE)
            failures += named or ["%s: status %s" % (program, status)]
    counts = "%d passed, %d failed, %d skipped" % (passed, len(failures), skipped)
    if reasons:
        counts += " (%s)" % "; ".join(sorted(set(reasons)))
    if failures:
        return FAILED, "%s: %s" % (counts, "; ".join(failures[:3]))
    return (PASSED if passed else FAILED), counts


def python(part):
    """The tests with the array libraries that are installed."""
    if not part.host.tag:
        return _no_python(part)
    if part.host.simulated:
        os.environ["FAISS_EXT_STAND_INS"] = "1"
    report = part.folder / "python.xml"
    status, text = part.run(
        part.host.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs",
        "--junitxml=%s" % report, BUNDLE / "tests/python/gpu_libraries",
        # Processes by the dozen, each of which takes seconds to begin.
        *("--ignore=%s" % (BUNDLE / "tests/python/gpu_libraries" / name)
          for name in ("test_forks.py", "test_end_of_process.py")),
        python=True,
    )
    if status is None:
        return part.late()
    counts = re.findall(r"^.*\d+ (?:passed|failed|skipped|error).*$", text, re.M)
    summary = counts[-1].strip("= ") if counts else "status %s" % status
    return (PASSED if status == 0 and " passed" in " " + summary else FAILED), summary


def sanitizer(tool):
    """A short subset under one tool of compute-sanitizer."""

    def run(part):
        path = part.host.sanitizer()
        if part.host.simulated:
            return SKIPPED, "no GPU"
        if path is None:
            return SKIPPED, "no compute-sanitizer on this host"
        program, *arguments = SANITIZED
        status, text = part.run(
            path, "--tool", tool, "--error-exitcode", "86",
            BUNDLE / "tests/bin" / program, *arguments,
        )
        if status is None:
            return part.late()
        found = re.findall(r"========= (ERROR SUMMARY: .*|RACECHECK SUMMARY: .*)", text)
        passed = len(re.findall(r"^\[ +OK +\] ", text, re.MULTILINE))
        line = "%d tests; %s" % (passed, found[-1] if found else "no summary")
        return (PASSED if status == 0 and passed else FAILED), line

    run.__doc__ = "A short subset under compute-sanitizer's %s." % tool
    return run


def profile(part):
    """Where the time of searches goes: `python -m faiss_ext profile`."""
    if not part.host.tag:
        return _no_python(part)
    arguments = "--n 1,10k --k 100,1000 --nb 10k,1M --d 128 --seconds 2".split()
    if part.host.simulated:
        # That it runs; its times mean nothing and are not kept.
        arguments = "--n 3 --k 2 --nb 50 --d 8 --seconds 1 --repetitions 1".split()
    else:
        arguments += ["--json", part.folder / "profile.json"]
    status, text = part.run(
        part.host.python, "-m", "faiss_ext", "profile", *arguments, python=True
    )
    if status is None:
        return part.late()
    return (PASSED if status == 0 else FAILED), (
        "see %s" % part.log.name if status == 0 else text.strip().split("\n")[-1]
    )


def benchmarks(part):
    """The benchmarks; on the simulator their smoke run, without any figure."""
    arguments = [
        BUNDLE / "benchs/run.py",
        "--library", BUNDLE / "lib/libfaiss_ext_benchs.so",
    ]
    if part.host.simulated:
        arguments += ["--smoke"]
    else:
        arguments += [
            "--out", part.folder / "benchmarks",
            "--seconds", max(part.limit - BENCHMARK_MARGIN, 1),
        ]
    if not part.host.tag:
        if not part.host.any_python:
            return _no_python(part)
        # The searches need the modules; copy-back by itself is all C++.
        arguments.append("copy_back")
    else:
        arguments += part.benchmarks
    status, text = part.run(part.host.any_python, *arguments, python=True)
    counts = re.findall(r'^\{"timed".*\}$', text, re.MULTILINE)
    if status is None:
        return FAILED, "%s; what was measured is in the record" % part.late()[1]
    line = counts[-1] if counts else "status %s" % status
    if not part.host.tag:
        line += " (copy_back alone: %s)" % _no_python(part)[1]
    return (PASSED if status == 0 else FAILED), line


def _no_python(part):
    return SKIPPED, "not run: needs %s with NumPy; found %s" % (
        " or ".join(MANIFEST["pythons"]), ", ".join(part.host.rejected) or "none",
    )


#: In the order in which they run; the name, the function, whether it needs a GPU
#: or the simulator.
PARTS = {
    "host": (host_part, False),
    "conformance": (conformance, True),
    "cpp": (cpp, True),
    "python": (python, True),
    "memcheck": (sanitizer("memcheck"), True),
    "racecheck": (sanitizer("racecheck"), True),
    "initcheck": (sanitizer("initcheck"), True),
    "profile": (profile, True),
    "benchmarks": (benchmarks, True),
}
