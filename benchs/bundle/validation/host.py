"""What this machine has: CUDA's libraries, an interpreter that fits, tools."""

import ctypes
import glob
import json
import os
import pathlib
import re
import subprocess

BUNDLE = pathlib.Path(__file__).resolve().parents[1]
MANIFEST = json.loads((BUNDLE / "MANIFEST.json").read_text())

#: What the Python parts may use besides NumPy.
LIBRARIES = ("numpy", "cupy", "torch", "jax", "numba", "cuvs", "pytest", "tqdm")
#: Those that the bundle has, for where they are missing.
CARRIED = ("pytest", "tqdm")


class Host:
    """Found once; everything that runs gets its environment from here."""

    def __init__(self, simulated, folder):
        """`folder`: where a folder of links to CUDA's libraries may be made."""
        self.simulated = simulated
        self.python, self.tag, self.rejected = _interpreter()
        #: One with NumPy, for what needs no modules of the bundle.
        self.any_python = self.python or next(
            (found.split(" ")[0] for found in self.rejected
             if "no NumPy" not in found), None
        )
        self.cuda = None if simulated else _cuda_libraries(self.any_python)
        self._links = _links(folder / "cuda-libraries", self.cuda or [])
        self.fallback = False
        # The host's C++ runtime may be older than the one this was built with.
        probe = str(BUNDLE / "tests/bin" / MANIFEST["programs"][0])
        _, text = _output("ldd", probe, environment=self.environment())
        self.fallback = "not found (required by" in text or "version `GLIBCXX" in text
        _, self.linked = _output("ldd", probe, environment=self.environment())
        self.gpus = [] if simulated else _gpus()

    @property
    def has_device(self):
        """Whether the parts that need a GPU, or the simulator, can run."""
        return self.simulated or bool(self.gpus)

    def environment(self, python=False):
        """Of a process of the bundle."""
        libraries = [BUNDLE / "lib"]
        if self.fallback:
            libraries.append(BUNDLE / "lib/fallback")
        variables = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
        if self.simulated:
            libraries.insert(0, BUNDLE / "simulator")
            variables["LD_PRELOAD"] = str(BUNDLE / "simulator/libcuda_sim_faiss.so")
            # So that no test is skipped for want of a second one.
            variables["CUDA_SIM_DEVICES"] = "2"
        else:
            libraries += self._links
        variables["LD_LIBRARY_PATH"] = os.pathsep.join(
            [str(folder) for folder in libraries]
            + list(filter(None, [os.environ.get("LD_LIBRARY_PATH")]))
        )
        if python and self.tag:
            folders = [BUNDLE / ("python-" + self.tag)]
            folders += [
                BUNDLE / "site" / name for name in CARRIED
                if name not in self.versions()
            ]
            variables["PYTHONPATH"] = os.pathsep.join(map(str, folders))
        return variables

    def versions(self):
        """Of the libraries that the interpreter has, by name."""
        if not hasattr(self, "_versions"):
            self._versions = {}
            if self.python:
                code = (
                    "import importlib.util, importlib.metadata as m\n"
                    "for n in %r:\n"
                    "  if importlib.util.find_spec(n):\n"
                    "    try: v = m.version(n)\n"
                    "    except Exception: v = 'unknown'\n"
                    "    print(n, v)" % (LIBRARIES,)
                )
                _, text = _output(self.python, "-c", code)
                self._versions = dict(
                    line.split(" ", 1) for line in text.splitlines() if " " in line
                )
        return self._versions

    def sanitizer(self):
        """The path of compute-sanitizer, or None."""
        for folder in (
            os.environ.get("PATH", "").split(os.pathsep)
            + [str(pathlib.Path(path).parents[1] / "bin") for path in self.cuda or []]
            + glob.glob("/usr/local/cuda*/bin")
            + glob.glob("/usr/local/cuda*/compute-sanitizer")
        ):
            path = os.path.join(folder, "compute-sanitizer")
            if os.access(path, os.X_OK):
                return path
        return None

    def describe(self):
        """Lines for the log and the summary."""
        yield "bundle      " + json.dumps(MANIFEST)
        yield "system      " + " ".join(os.uname()[i] for i in (0, 2, 4))
        yield "cores       %d" % len(os.sched_getaffinity(0))
        yield "GPUs        " + (
            "simulated" if self.simulated else "; ".join(self.gpus) or "none"
        )
        yield "CUDA        " + (
            "simulated" if self.simulated
            else os.pathsep.join(self.cuda) if self.cuda
            else "the loader's own folders" if self.cuda is not None
            else "libcudart.so.%s and libcublas not found" % MANIFEST["cuda_major"]
        )
        yield "C++ runtime " + ("the bundle's" if self.fallback else "the host's")
        yield "sanitizer   " + (self.sanitizer() or "none")
        yield "Python      " + (
            "%s (%s)" % (self.python, self.tag) if self.tag
            else "none fits; found %s; needed: one of %s with NumPy"
            % (", ".join(self.rejected) or "none", ", ".join(MANIFEST["pythons"]))
        )
        for name, version in self.versions().items():
            yield "  %-9s %s" % (name, version)
        for line in self.linked.splitlines():
            if "not found" in line:
                yield "missing     " + line.strip()


def _interpreter():
    """The first interpreter that the bundle has modules for and that has NumPy:
    (path, tag, what others there are)."""
    rejected = []
    candidates = [os.environ.get("PYTHON"), "python3"]
    candidates += ["python3." + tag[3:] for tag in MANIFEST["pythons"]]
    candidates += ["/usr/bin/python3." + tag[3:] for tag in MANIFEST["pythons"]]
    for candidate in filter(None, candidates):
        status, text = _output(
            candidate, "-c",
            "import sys; print('cp%d%d' % sys.version_info[:2]); import numpy",
        )
        named = re.search(r"^cp\d+$", text, re.MULTILINE)
        tag = named.group() if named else ""
        if status == 0 and tag in MANIFEST["pythons"]:
            return candidate, tag, rejected
        found = "%s (%s%s)" % (candidate, tag, "" if status == 0 else ", no NumPy")
        if tag and found not in rejected:
            rejected.append(found)
    return None, None, rejected


def _cuda_libraries(python):
    """Paths of libcudart, libcublas and libcublasLt; [] if the loader finds them
    by itself, None if they are nowhere. Those of the wheels that PyTorch and
    others use come first, so that a process has one of each."""
    names = [
        "lib%s.so.%s" % (name, MANIFEST["cuda_major"])
        for name in ("cudart", "cublas", "cublasLt")
    ]
    folders = []
    if python:
        _, text = _output(
            python, "-c",
            "import nvidia, os\n"
            "for root in nvidia.__path__:\n"
            "  for folder, _, files in os.walk(root):\n"
            "    if any('.so.' in f for f in files): print(folder)",
        )
        folders += text.splitlines()
    if os.environ.get("CUDA_HOME"):
        folders += [os.environ["CUDA_HOME"] + name for name in ("/lib64", "/lib")]
    folders += sorted(glob.glob("/usr/local/cuda*/lib64"))
    folders += sorted(glob.glob("/usr/local/cuda*/targets/*/lib"))
    found = []
    for name in names:
        have = [os.path.join(folder, name) for folder in folders]
        have = [path for path in have if os.path.exists(path)]
        if have:
            found.append(have[0])
        elif not _loads(name):
            return None
    return found


def _loads(name):
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _links(folder, paths):
    """A folder with links to these files alone: the folders they are in hold
    other libraries, which must not take the place of those that come with
    PyTorch."""
    if not paths:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        link = folder / os.path.basename(path)
        if link.is_symlink():
            link.unlink()
        link.symlink_to(os.path.realpath(path))
    return [folder]


def _gpus():
    status, text = _output("nvidia-smi", "-L")
    lines = text.splitlines() if status == 0 else []
    return [line for line in lines if line.startswith("GPU ")]


def _output(*command, environment=None):
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError):
        return 1, ""
    return done.returncode, done.stdout.decode(errors="replace").strip()
