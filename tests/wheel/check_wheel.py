#!/usr/bin/env python3
"""Look into a wheel that is to lie beside a published wheel of Faiss.

    tests/wheel/check_wheel.py WHEEL FAISS_VERSION CUDA_HOME

The first thing that is wrong ends it with status 1.
"""

from __future__ import annotations

import email.parser
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

#: What it is compiled for; PTX of the last one serves GPUs that come later.
ARCHITECTURES = {"sm_75", "sm_80", "sm_86", "sm_89", "sm_90"}
LIMIT_BYTES = 3_000_000


def check(right, problem):
    """End the program unless it is right."""
    if not right:
        sys.exit(f"error: the wheel is wrong: {problem}")


def output(*command):
    """What a program prints."""
    return subprocess.run(
        [str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def check_names(names):
    """The files: ours, and nothing of Faiss, CUDA or the build."""
    for needed in (
        "faiss_ext/__init__.py",
        "faiss_ext/contrib/__init__.py",
        "faiss_ext/py.typed",
        "faiss_ext/_loader/built_on.py",
        "faiss_ext/_native/_swigfaiss_ext.so",
        "faiss_ext/_native/swigfaiss_ext.py",
    ):
        check(needed in names, f"it lacks {needed}")
    strange = [
        name
        for name in names
        if not re.match(r"(faiss_ext|faiss_ext-[^/]*\.dist-info)/", name)
        or re.search(r"\.(cpp|h|cu|swig|in|pyc|a)$|CMakeLists|/lib(faiss\.|cu)", name)
    ]
    check(not strange, f"it holds {strange}")
    check(any(name.endswith("licenses/LICENSE") for name in names), "it has no licence")


def check_metadata(text, version):
    """What pip will install with it."""
    metadata = email.parser.Parser().parsestr(text)
    required = metadata.get_all("Requires-Dist")
    check(f"faiss-gpu=={version}" in required, f"it requires {required}")
    check("cpu" not in metadata.get_all("Provides-Extra"), "it has the extra `cpu`")
    check(not any("faiss-cpu" in each for each in required), f"it requires {required}")


def check_library(path):
    """What a library is linked to, and where it looks for that."""
    tags = output("readelf", "-d", path)
    places = re.findall(r"(?:RPATH|RUNPATH).*\[(.*)\]", tags)
    check(
        any("$ORIGIN/../../faiss" in each.split(":") for each in places),
        f"{path.name} looks for libraries in {places}",
    )
    for place in ":".join(places).split(":"):
        check(place.startswith("$ORIGIN"), f"{path.name} looks for libraries in {place}")
    needed = re.findall(r"NEEDED.*\[(.*)\]", tags)
    check("libfaiss.so" in needed, f"{path.name} needs {needed}")
    allowed = r"lib(faiss|faiss_ext_gpu|cudart|cublas|stdc\+\+|gcc_s|c|m|pthread|dl|rt)\.so|ld-linux"
    strange = [name for name in needed if not re.match(allowed, name)]
    check(not strange, f"{path.name} needs {strange}")
    # A process may have CUDA's libraries of two versions: Faiss' and PyTorch's.
    symbols = output("readelf", "-W", "--dyn-syms", path)
    asked = re.findall(r" UND ((?:cuda|cublas)[A-Z]\w*)(@\S+)?", symbols)
    any_version = sorted(name for name, version in asked if not version)
    check(not any_version, f"{path.name} takes {any_version} from any library")
    if path.name.startswith("libfaiss_ext_gpu"):
        versions = {version.split()[0] for name, version in asked if name == "cublasGemmEx"}
        check(
            any(each.startswith("@libcublas.so.") for each in versions),
            f"{path.name} takes cublasGemmEx from {versions}",
        )


def check_kernels(library, cuda):
    """The GPUs that it has code for."""
    dump = pathlib.Path(cuda) / "bin" / "cuobjdump"
    found = set(re.findall(r"sm_\d+", output(dump, "--list-elf", library)))
    check(found == ARCHITECTURES, f"it has code for {sorted(found)}")
    check("sm_90" in output(dump, "--list-ptx", library), "it has no PTX of sm_90")


def main():
    wheel, version, cuda = sys.argv[1:]
    size = pathlib.Path(wheel).stat().st_size
    check(size < LIMIT_BYTES, f"it has {size:,} bytes")
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        check_names(set(archive.namelist()))
        (metadata,) = (n for n in archive.namelist() if n.endswith("dist-info/METADATA"))
        check_metadata(archive.read(metadata).decode(), version)
        archive.extractall(folder)
        libraries = sorted(pathlib.Path(folder).rglob("*.so*"))
        check(len(libraries) == 2, f"it has the libraries {libraries}")
        for path in libraries:
            check_library(path)
        check_kernels(next(p for p in libraries if "gpu" in p.name), cuda)


if __name__ == "__main__":
    main()
