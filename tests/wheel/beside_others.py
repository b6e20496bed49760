#!/usr/bin/env python3
"""What the import says where the Faiss beside a wheel is not the one it is for.

    tests/wheel/beside_others.py PYTHON WHEEL FAISS_VERSION HEADERS BUILD_DIR CUDA_HOME [CASE]...

Each case (default: all) is a fresh virtual environment of PYTHON with published
wheels as they are; CUDA is the simulated one of BUILD_DIR, which may be of another
Python. Needs pip's package index. Reports every case; ends with status 1 if one is
not as it should be.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]

SEARCH = """
import faiss_ext, faiss, numpy
assert faiss_ext.has_native, faiss_ext.native_problem
assert issubclass(faiss_ext.GpuIndexFlatL2, faiss.GpuIndexFlatL2)
vectors = numpy.random.default_rng(0).integers(-7, 8, (1000, 32)).astype("float32")
expected = faiss.IndexFlatL2(32)
expected.add(vectors)
index = faiss_ext.index_cpu_to_gpu(faiss_ext.StandardGpuResources(), 0, expected)
assert type(index) is faiss_ext.GpuIndexFlatL2 or isinstance(index, faiss_ext.GpuIndexFlat)
for found, right in zip(index.search(vectors[:9], 5), expected.search(vectors[:9], 5)):
    numpy.testing.assert_array_equal(found, right)
assert index.transfer_stats()["host_waits"] == 1
print("found")
"""

#: The package goes on with the Faiss that is there, and has said why.
GOES_ON = """
import faiss_ext, faiss, numpy
assert not faiss_ext.has_native
index = faiss_ext.IndexFlatL2(4)
index.add(numpy.eye(4, dtype="float32"))
assert index.search(numpy.eye(4, dtype="float32"), 1)[1].ravel().tolist() == [0, 1, 2, 3]
if hasattr(faiss, "GpuIndexFlat"):
    assert faiss_ext.GpuIndexFlat is faiss.GpuIndexFlat
print("went on")
"""


class Machine:
    """A virtual environment, in which CUDA is simulated unless it is not."""

    def __init__(self, folder, cases):
        self.cases = cases
        call(cases.interpreter, "-m", "venv", folder)
        self.python = folder / "bin" / "python"
        self.pip("install", "numpy", "packaging", "tqdm")

    def pip(self, *arguments):
        """pip, which must succeed."""
        call(self.python, "-m", "pip", "-q", "--disable-pip-version-check", *arguments)

    def install(self, *requirements):
        """Install these as they are, without what they ask for."""
        self.pip("install", "--no-deps", *requirements)

    def python_path(self, *parts):
        """A folder of the environment's packages."""
        site = output(
            self.python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))")
        return pathlib.Path(site.strip(), *parts)

    def run(self, code, simulated=True):
        """Run a program; its status, standard output and standard error."""
        return self.start([self.python, "-c", code], simulated)

    def start(self, command, simulated=True):
        """The same of a command."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "LD_LIBRARY_PATH", "LD_PRELOAD")
        }
        if simulated:
            simulator = self.cases.build / "cuda_sim"
            environment.update(
                PYTHONPATH=str(simulator / "wheels"),
                # What is preloaded is linked to libfaiss.so, which comes from here.
                LD_LIBRARY_PATH=f"{simulator}:{self.python_path('faiss')}",
                LD_PRELOAD=str(simulator / "libcuda_sim_faiss.so"),
            )
        done = subprocess.run(
            [str(part) for part in command],
            env=environment, cwd=self.python.parent, capture_output=True, text=True,
        )
        return done.returncode, done.stdout, done.stderr


def call(*command):
    """Run a program that must succeed."""
    subprocess.run([str(part) for part in command], check=True)


def output(*command):
    """What a program that must succeed prints."""
    return subprocess.run(
        [str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def warned(result, *texts):
    """The program went on, after exactly one warning with all the texts."""
    status, out, err = result
    assert status == 0 and out == "went on\n", (status, out, err)
    warnings = [line for line in err.splitlines() if "Warning" in line]
    assert len(warnings) == 1, err
    assert "RuntimeWarning: faiss_ext accelerates nothing: " in warnings[0], err
    for text in texts:
        assert text in warnings[0], (text, err)


def refused(result, *texts):
    """The import failed with one line that has all the texts."""
    status, _, err = result
    assert status == 1, err
    line = err.splitlines()[-1]
    assert line.startswith("ImportError: "), err
    for text in texts:
        assert text in line, (text, err)


class Cases:
    """Each method is a case: an empty folder in, an exception if it is not so."""

    def __init__(self, interpreter, wheel, version, headers, build, cuda):
        self.interpreter = interpreter
        self.wheel = pathlib.Path(wheel).resolve()
        self.version = version
        self.headers = headers
        self.build = pathlib.Path(build).resolve()
        self.cuda = pathlib.Path(cuda)
        self.exact = f"pip install --force-reinstall --no-deps faiss-gpu=={version}`"

    def the_right_one(self, folder):
        """The Faiss that it is for: a search, and not a word."""
        machine = Machine(folder, self)
        machine.install(f"faiss-gpu=={self.version}", self.wheel)
        status, out, err = machine.run(SEARCH)
        assert status == 0 and out == "found\n" and err == "", (status, out, err)

    def the_readmes_way(self, folder):
        """As a user installs them: the command that says what is in use, and the
        first example of the README."""
        machine = Machine(folder, self)
        machine.pip("install", f"faiss-gpu=={self.version}", self.wheel)
        status, out, err = machine.start([folder / "bin" / "faiss-ext", "info"])
        assert status == 0 and err == "", (status, out, err)
        assert re.search(r"(?m)^native part +in use$", out), out
        assert re.search(rf"(?m)^Faiss +{re.escape(self.version)}, ", out), out
        assert re.search(r"(?m)^GPUs +[1-9]", out), out
        print(out, end="")
        (example, *_) = re.findall(
            r"(?ms)^```python\n(.*?)^```$", (ROOT / "README.md").read_text())
        status, out, err = machine.run(example)
        assert status == 0 and err == "", (status, out, err)
        assert out.startswith("{'") and "'host_waits': 1" in out, out

    def another_version(self, folder):
        """Another version of faiss-gpu."""
        other = "1.15.0" if self.version != "1.15.0" else "1.15.1"
        machine = Machine(folder, self)
        machine.install(f"faiss-gpu=={other}", self.wheel)
        warned(machine.run(GOES_ON), f"faiss-gpu {self.version}", f"'faiss' is {other}",
               self.exact)

    def another_build_of_the_version(self, folder):
        """A library that says the same version and is another one."""
        machine = Machine(folder, self)
        machine.install(f"faiss-gpu=={self.version}", self.wheel)
        library = machine.python_path("faiss", "libfaiss.so")
        content = bytearray(library.read_bytes())
        note = content.index(b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0") + 16
        content[note] ^= 0xFF
        library.write_bytes(content)
        warned(machine.run(GOES_ON), str(library), content[note:note + 20].hex(), self.exact)

    def faiss_for_the_cpu_over_it(self, folder):
        """What `pip install '.[cpu]'` of a checkout does; then the fix that is named."""
        machine = Machine(folder, self)
        machine.install(f"faiss-gpu=={self.version}", self.wheel)
        machine.install("faiss-cpu")
        result = machine.run(GOES_ON)
        texts = ("faiss-cpu", f"faiss-gpu {self.version}", "`pip uninstall faiss-cpu`",
                 self.exact)
        if result[0] == 0:
            warned(result, *texts)
        else:
            refused(result, *texts)
        machine.pip("uninstall", "--yes", "faiss-cpu")
        machine.pip("install", "--force-reinstall", "--no-deps", f"faiss-gpu=={self.version}")
        status, out, err = machine.run(SEARCH)
        assert status == 0 and out == "found\n", (status, out, err)

    def without_cudas_wheels(self, folder):
        """Faiss' own words, and ours."""
        machine = Machine(folder, self)
        machine.install(f"faiss-gpu=={self.version}", self.wheel)
        refused(machine.run(GOES_ON, simulated=False),
                "faiss-gpu installed but nvidia-cuda-runtime-cu12 is missing",
                "pip install --upgrade 'faiss_ext[cuda12]'")

    def the_build_with_cuvs(self, folder):
        """The wheel with cuVS: the import names it, and no build begins on it. (What
        it needs of cuVS is on no index that is reached here, so it says that.)"""
        machine = Machine(folder, self)
        machine.install(self.cuvs_requirement(), self.wheel)
        refused(machine.run(GOES_ON, simulated=False), "cuVS", "`pip uninstall faiss-gpu-cuvs`",
                self.exact)
        done = subprocess.run(
            ["cmake", "-S", str(ROOT), "-B", str(folder / "build"), "-G", "Ninja",
             f"-DFAISS_EXT_FAISS_WHEEL={machine.python_path('faiss')}",
             f"-DFAISS_EXT_FAISS_HEADERS={self.headers}",
             f"-DPython_EXECUTABLE={machine.python}"],
            capture_output=True, text=True,
        )
        said = " ".join(done.stderr.split())
        assert done.returncode == 1 and "is a build with cuVS" in said, said
        assert "Fix: `pip uninstall faiss-gpu-cuvs`" in said, said

    def cuvs_requirement(self):
        """Of the same version where there is one."""
        published = {"1.15.0", "1.15.1"}
        return f"faiss-gpu-cuvs=={self.version if self.version in published else '1.15.1'}"


def main():
    cases = Cases(*sys.argv[1:7])
    names = sys.argv[7:] or [
        n for n, f in vars(Cases).items() if callable(f) and n != "cuvs_requirement"
        and not n.startswith("_")]
    failed = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                getattr(cases, name)(pathlib.Path(folder) / "venv")
                print(f"{name}: passed", flush=True)
            except Exception:
                failed += 1
                traceback.print_exc()
                print(f"{name}: FAILED", flush=True)
    print(f"    beside others: {len(names) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
