"""What is told about a build of Faiss from its files."""

from __future__ import annotations

import _ctypes
import hashlib
import json
import pathlib
import re
import subprocess
import sys

import pytest
from made_up_faiss import install

from conftest import ROOT
from faiss_ext._loader import faiss_build

#: A compiled library that every Python has, and the one that it is linked to.
LIBRARY = pathlib.Path(_ctypes.__file__)


def readelf(option: str) -> str:
    return subprocess.run(
        ["readelf", option, LIBRARY], check=True, capture_output=True, text=True
    ).stdout


def wheel(site: pathlib.Path, *distributions: tuple[str, str]) -> pathlib.Path:
    """A made-up folder `faiss`, of these distributions."""
    for name, version in distributions:
        install(site, name, version)
    folder = site / "faiss"
    folder.mkdir()
    return folder


def test_libraries_that_are_needed_are_those_that_readelf_tells():
    needed = re.findall(r"NEEDED.*\[(.*)\]", readelf("-dW"))
    assert needed and faiss_build.SharedLibrary(LIBRARY).needed() == needed


def test_the_fingerprint_is_the_build_id_or_else_a_hash():
    library = faiss_build.SharedLibrary(LIBRARY)
    build_id = re.search(r"Build ID: ([0-9a-f]+)", readelf("-nW"))
    if build_id:
        assert library.fingerprint() == f"build-id {build_id[1]}"
    content = LIBRARY.read_bytes()
    expected = f"sha256 {hashlib.sha256(content).hexdigest()}"
    library._build_id = lambda: None
    assert library.fingerprint() == expected


@pytest.mark.parametrize("content", [b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(60)])
def test_what_is_no_library_is_named(tmp_path, content):
    path = tmp_path / "libfaiss.so"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} is no shared library"):
        faiss_build.SharedLibrary(path)


def test_owners_are_all_that_have_put_their_files_there(tmp_path):
    folder = wheel(tmp_path, ("faiss-gpu", "1.15.1"), ("faiss-cpu", "1.14.3"))
    assert [str(each) for each in faiss_build.owners(folder)] == [
        "faiss-cpu 1.14.3", "faiss-gpu 1.15.1"]


def test_the_table_of_types_is_found_in_the_compiled_part(tmp_path):
    folder = wheel(tmp_path)
    assert faiss_build.swig_table(folder) == ""
    (folder / "_swigfaiss_avx2.so").write_bytes(
        LIBRARY.read_bytes() + b"\0swig_runtime_data4.type_pointer_capsule\0")
    assert faiss_build.swig_table(folder) == "4"


def test_cuvs_is_told_by_the_mark_that_its_wheels_have(tmp_path):
    folder = wheel(tmp_path)
    assert not faiss_build.has_cuvs(folder)
    (folder / "_cuvs_build.py").touch()
    assert faiss_build.has_cuvs(folder)


def test_a_module_that_uses_no_faiss_has_no_library_of_it():
    assert faiss_build.loaded_library(str(LIBRARY)) is None
    assert faiss_build.loaded_library("/nosuch.so") is None


def test_as_a_program_it_tells_all_of_it_and_imports_nothing_of_the_package(tmp_path):
    folder = wheel(tmp_path, ("faiss-gpu", "1.15.1"))
    (folder / "libfaiss.so").write_bytes(LIBRARY.read_bytes())
    done = subprocess.run(
        [sys.executable, "-I", ROOT / "faiss_ext" / "_loader" / "faiss_build.py", folder],
        check=True, capture_output=True, text=True,
    )
    assert json.loads(done.stdout) == {
        "owners": [{"name": "faiss-gpu", "version": "1.15.1"}],
        "fingerprint": faiss_build.SharedLibrary(LIBRARY).fingerprint(),
        "cuda": "", "cuvs": False, "swig": "",
    }


def test_a_library_is_not_loaded_to_be_read(tmp_path):
    path = tmp_path / "libfaiss.so"
    path.write_bytes(LIBRARY.read_bytes())
    faiss_build.SharedLibrary(path).fingerprint()
    # Loaded and mapped libraries differ by their being executable.
    maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
    assert not [line for line in maps if str(path) in line and "x" in line.split()[1]]
