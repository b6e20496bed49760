"""Packages of Faiss that have its library once for each set of CPU instructions,
of which the module `faiss` loads one: so does the native part, or it says so."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import faiss
import pytest

PROGRAM = """
import pathlib
import numpy as np
import faiss
import faiss_ext

x = np.random.default_rng(1).random((40, 8), dtype="f4")
index = faiss_ext.IndexFlatL2(8)
index.add(x)
assert (index.search(x, 1)[1][:, 0] == np.arange(40)).all()
if faiss_ext.has_native:
    assert isinstance(faiss_ext.StagedConfig(), faiss_ext.StagedConfig)
loaded = {pathlib.Path(line.split()[-1]).name
          for line in pathlib.Path("/proc/self/maps").read_text().splitlines()
          if "/libfaiss" in line and "faiss_ext" not in line}
print(faiss_ext.has_native, *sorted(loaded))
"""


def patchelf(*arguments):
    subprocess.run(["patchelf", *map(str, arguments)], check=True)


def places(library):
    """Where a library looks for others: what a wheel carries lies beside it."""
    told = subprocess.run(
        ["patchelf", "--print-rpath", library],
        capture_output=True, text=True, check=True).stdout.strip()
    return told.replace("$ORIGIN", str(library.parent))


class Packages:
    """Copies of both packages in one folder. The module `faiss` loads another
    library than libfaiss.so, which is there, too."""

    def __init__(self, folder, faiss_ext):
        from faiss_ext._loader import built_on, check_faiss, faiss_build

        self._folder = folder
        (part,) = map(pathlib.Path, check_faiss._compiled_parts())
        library = faiss_build.loaded_library(str(part))
        self._libraries = folder / "lib"
        self._libraries.mkdir()
        for name in ("libfaiss.so", "libfaiss_avx2.so"):
            shutil.copy(library, self._libraries / name)
            patchelf("--set-soname", name, self._libraries / name)
            patchelf("--force-rpath", "--set-rpath", places(library), self._libraries / name)
        shutil.copytree(pathlib.Path(faiss.__file__).parent, folder / "faiss")
        elsewhere = places(part)
        part = folder / "faiss" / part.name
        patchelf("--replace-needed", library.name, "libfaiss_avx2.so", part)
        patchelf("--set-rpath", f"{self._libraries}:{elsewhere}", part)

        ours = pathlib.Path(faiss_ext.__file__).parent
        shutil.copytree(ours, folder / "faiss_ext")
        (folder / "VERSION").write_text(faiss_ext.__version__)
        self._module = next((folder / "faiss_ext/_native").glob("_swigfaiss_ext*.so"))
        names = subprocess.run(
            ["patchelf", "--print-needed", self._module],
            capture_output=True, text=True, check=True).stdout.split()
        (name,) = (name for name in names if name.startswith("libfaiss_ext_gpu"))
        original = subprocess.run(
            ["ldd", next((ours / "_native").glob("_swigfaiss_ext*.so"))],
            capture_output=True, text=True, check=True).stdout
        (path,) = (line.split()[2] for line in original.splitlines() if name in line)
        self._gpu = self._libraries / name
        shutil.copy(path, self._gpu)
        self.recorded = folder / "faiss_ext/_loader/built_on.py"
        self.faiss_name = library.name
        assert not built_on.TAKES_LOADED_LIBRARY
        for file in (self._module, self._gpu):
            rpath = subprocess.run(
                ["patchelf", "--print-rpath", file],
                capture_output=True, text=True, check=True).stdout.strip()
            patchelf("--set-rpath", f"{self._libraries}:{rpath}", file)

    def name_no_faiss(self):
        """As FAISS_EXT_FAISS_VARIANTS leaves our libraries."""
        for file in (self._module, self._gpu):
            patchelf("--remove-needed", self.faiss_name, file)
        text = self.recorded.read_text()
        self.recorded.write_text(f"{text}\nTAKES_LOADED_LIBRARY = True\n")

    def run(self):
        """What the program prints, and its warnings."""
        environment = {
            name: value for name, value in os.environ.items()
            # The simulator's stand-ins for Faiss' kernels load libfaiss.so.
            if name != "LD_PRELOAD"
        }
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(self._folder), *filter(None, sys.path)])
        done = subprocess.run(
            [sys.executable, "-W", "always::RuntimeWarning", "-c", PROGRAM],
            env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), done.stderr


@pytest.fixture
def packages(faiss_ext, tmp_path):
    return Packages(tmp_path, faiss_ext)


def test_a_native_part_that_names_none_takes_the_one_that_is_loaded(packages):
    packages.name_no_faiss()
    printed, warnings = packages.run()
    assert printed == "True libfaiss_avx2.so"
    assert "faiss_ext" not in warnings


def test_a_native_part_that_names_another_one_is_not_used(packages):
    printed, warnings = packages.run()
    assert printed.startswith("False ")
    assert warnings.count("faiss_ext accelerates nothing") == 1
