"""validate.sh of the bundle: parts within their limits, none hidden by another.
The programs are stand-ins that print what GoogleTest prints."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

BUNDLE = pathlib.Path(__file__).resolve().parents[2] / "benchs/bundle"

PASSES = "echo '[       OK ] Search.one (0 ms)'; echo '[       OK ] Search.two (0 ms)'"
FAILS = "echo '[  FAILED  ] Search.one (0 ms)'; exit 1"
SKIPS = (
    "echo 'several.cpp:9: Skipped'; echo 'one GPU here; two are needed'; echo; "
    "echo '[  SKIPPED ] Search.one (0 ms)'")
HANGS = "sleep 60 & wait"
CRASHES = "kill -ABRT $$"


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


class Bundle:
    """A folder as `make bundle` makes it, and a machine around it."""

    def __init__(self, folder):
        self.folder, self.out = folder / "bundle", folder / "out"
        self._path = folder / "path"
        shutil.copytree(BUNDLE / "validation", self.folder / "validation")
        shutil.copy(BUNDLE / "validate.sh", self.folder)
        self.manifest = {
            "cuda_major": "13", "pythons": [], "programs": ["cuda_conformance"],
        }
        self.program("cuda_conformance", PASSES)
        self.gpu("exit 9")

    def program(self, name, text):
        """A test program."""
        script(self.folder / "tests/bin" / name, text)
        if name not in self.manifest["programs"]:
            self.manifest["programs"].append(name)
        (self.folder / "MANIFEST.json").write_text(json.dumps(self.manifest))

    def gpu(self, text="echo 'GPU 0: made up'"):
        """A machine with one, whose CUDA libraries are where CUDA_HOME says."""
        script(self._path / "nvidia-smi", text)
        library = self.folder / "cuda/lib64"
        library.mkdir(parents=True, exist_ok=True)
        for name in ("cudart", "cublas", "cublasLt"):
            (library / f"lib{name}.so.13").touch()

    def sanitizer(self, text):
        script(self._path / "compute-sanitizer", text)

    def limit(self, part, seconds):
        file = self.folder / "validation/parts.py"
        lines = file.read_text().splitlines()
        at = next(i for i, l in enumerate(lines) if l.startswith(f'    "{part}": '))
        lines[at] = f'    "{part}": {seconds},'
        file.write_text("\n".join(lines) + "\n")

    def run(self, *arguments):
        """Exit status, and of each part its state and its line."""
        done = subprocess.run(
            [self.folder / "validate.sh", self.out, *arguments],
            capture_output=True, text=True, timeout=120,
            env={
                **os.environ, "PYTHON": sys.executable,
                "CUDA_HOME": str(self.folder / "cuda"),
                "PATH": f"{self._path}{os.pathsep}{os.environ['PATH']}",
            },
        )
        assert "Traceback" not in done.stdout + done.stderr
        summary = json.loads((self.out / "summary.json").read_text())
        assert (self.out / "summary.txt").read_text().strip() in done.stdout
        return done.returncode, {
            row["part"]: (row["state"], row["line"]) for row in summary["parts"]
        }


def living(group):
    """Processes of a group, but for those that nobody has waited for yet."""
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            yield stat


@pytest.fixture
def bundle(tmp_path):
    return Bundle(tmp_path)


def test_without_a_gpu_all_is_skipped_and_the_status_says_so(bundle):
    status, parts = bundle.run()
    assert status == 3
    assert parts.pop("host") == ("passed", "no GPU")
    assert set(parts.values()) == {("skipped", "no GPU")}
    assert len(parts) == 8


def test_a_machine_with_a_gpu_runs_the_programs(bundle):
    bundle.gpu()
    bundle.program("search_test", PASSES)
    status, parts = bundle.run("host", "conformance", "cpp")
    assert status == 0, parts
    assert parts["host"][1] == "GPU 0: made up"
    assert parts["conformance"] == ("passed", "2 passed, 0 failed, 0 skipped")
    links = sorted(p.name for p in (bundle.out / "cuda-libraries").iterdir())
    assert links == ["libcublas.so.13", "libcublasLt.so.13", "libcudart.so.13"]


@pytest.mark.parametrize(("text", "line"), [
    (FAILS, "0 passed, 1 failed, 0 skipped: Search.one"),
    (CRASHES, "0 passed, 1 failed, 0 skipped: search_test: status -6"),
    (SKIPS, "0 passed, 0 failed, 1 skipped (one GPU here; two are needed)"),
])
def test_a_part_that_fails_hides_no_other(bundle, text, line):
    bundle.gpu()
    bundle.program("search_test", text)
    status, parts = bundle.run("cpp", "conformance")
    assert status == 1
    assert parts["cpp"] == ("failed", line)
    assert parts["conformance"][0] == "passed"


def test_what_is_skipped_passes_beside_the_rest_with_its_reason(bundle):
    bundle.gpu()
    bundle.program("search_test", PASSES)
    bundle.program("several_gpus_test", f"{SKIPS}; {SKIPS}")
    status, parts = bundle.run("cpp")
    assert status == 0
    assert parts["cpp"] == (
        "passed", "2 passed, 0 failed, 2 skipped (one GPU here; two are needed)")


def test_the_simulator_has_two_gpus(bundle):
    bundle.program("search_test", f'[ "$CUDA_SIM_DEVICES" = 2 ] || exit 9; {PASSES}')
    status, parts = bundle.run("cpp", "--simulated")
    assert status == 0, parts


def test_a_part_that_hangs_is_ended_with_its_children(bundle):
    bundle.gpu()
    bundle.program("search_test", f"echo $$ > {bundle.folder}/pid; {HANGS}")
    bundle.limit("cpp", 1)
    status, parts = bundle.run("cpp", "conformance")
    assert status == 1
    assert parts["cpp"] == (
        "failed",
        "0 passed, 1 failed, 0 skipped: search_test: time limit of 1 s",
    )
    assert parts["conformance"][0] == "passed"
    group = int((bundle.folder / "pid").read_text())
    assert not list(living(group))


def test_a_missing_program_fails_its_part(bundle):
    bundle.gpu()
    bundle.program("search_test", PASSES)
    (bundle.folder / "tests/bin/search_test").unlink()
    status, parts = bundle.run("cpp")
    assert status == 1
    assert "search_test: status 127" in parts["cpp"][1]


def test_the_sanitizer_judges(bundle):
    bundle.gpu()
    bundle.program("search_test", PASSES)
    bundle.sanitizer(
        'tool=$2; shift 4; "$@"; echo "========= ERROR SUMMARY: 0 errors"; '
        '[ "$tool" != racecheck ] || { echo "========= RACECHECK SUMMARY: '
        '2 hazards displayed"; exit 86; }')
    status, parts = bundle.run("memcheck", "racecheck", "initcheck")
    assert status == 1
    assert parts["memcheck"] == ("passed", "2 tests; ERROR SUMMARY: 0 errors")
    assert parts["initcheck"][0] == "passed"
    assert parts["racecheck"] == (
        "failed", "2 tests; RACECHECK SUMMARY: 2 hazards displayed")


def test_without_a_fitting_python_the_rest_runs_and_says_what_did_not(bundle):
    bundle.gpu()
    status, parts = bundle.run("conformance", "python")
    assert status == 0
    state, line = parts["python"]
    assert state == "skipped" and line.startswith("not run: needs ")


def test_the_limits_add_up_to_less_than_nine_minutes(bundle):
    sys.path.insert(0, str(bundle.folder / "validation"))
    try:
        import parts

        assert sum(parts.LIMITS.values()) < 540
        assert list(parts.LIMITS) == list(parts.PARTS)
    finally:
        sys.path.remove(str(bundle.folder / "validation"))


def test_an_unknown_part_is_refused(bundle):
    done = subprocess.run(
        [bundle.folder / "validate.sh", bundle.out, "everything"],
        capture_output=True, text=True,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert done.returncode == 2 and "no part 'everything'" in done.stderr


def test_benchmarks_can_be_chosen(bundle):
    bundle.gpu()
    bundle.manifest["pythons"] = [
        f"cp{sys.version_info.major}{sys.version_info.minor}"]
    bundle.program("search_test", PASSES)
    (bundle.folder / "benchs").mkdir()
    (bundle.folder / "benchs/run.py").write_text(
        "import sys\nprint(sys.argv)\nprint('{\"timed\": 1}')\n")
    status, parts = bundle.run(
        "benchmarks", "--seconds", "7", "--benchmarks", "grid,threads")
    assert (status, parts["benchmarks"]) == (0, ("passed", '{"timed": 1}'))
    log = (bundle.out / "benchmarks.log").read_text()
    assert "'--seconds', '7', '--only', 'grid,threads']" in log
