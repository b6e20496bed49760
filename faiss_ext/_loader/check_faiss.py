"""The checks that the module `faiss` and our native part share one Faiss.

Our classes derive from Faiss' in C++ and in Python. With two builds of Faiss in
one process, or one that is not what ours were compiled for, they would be handed
to code that knows other layouts. Beside a wheel its distribution, library and SWIG's
table of types are compared before the native part is loaded; for a Faiss built from
source the version alone. In both cases the address of one of Faiss' functions and
SWIG's table are compared afterwards.
"""

from __future__ import annotations

import ctypes
import pathlib
import sys

import faiss

from . import faiss_build, find_faiss


class OtherFaiss(ImportError):
    """The module `faiss` is not the Faiss that the native part is built on."""


def _compiled_parts() -> list[str]:
    """The files of the compiled parts of the module `faiss` that are loaded (there
    is one for each set of CPU instructions, and one is loaded)."""
    return [
        module.__file__
        for name, module in list(sys.modules.items())
        if name.startswith("faiss._swigfaiss") and module.__file__
    ]


def share_loaded_library() -> None:
    """Where our libraries name none of Faiss', which may be there once for each
    set of CPU instructions: give them the one that is loaded."""
    from . import built_on

    if built_on.TAKES_LOADED_LIBRARY:
        for part in _compiled_parts():
            path = faiss_build.loaded_library(part)
            if path is not None:
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def check_build() -> None:
    """Compare what tells builds of Faiss apart, before the native part is loaded:
    the version, and beside a wheel the flavour, the library and SWIG's table.

    Raises
    ------
    OtherFaiss
        With one line that names both, and the fix.
    """
    from . import built_on

    ours = f"{built_on.DISTRIBUTION or 'Faiss'} {built_on.VERSION}"
    told = f"the native part is built on {ours}, and the module 'faiss' is "
    exact = (
        find_faiss.reinstall(built_on) if built_on.DISTRIBUTION
        else "install that one, or build faiss_ext on this one"
    )
    if faiss.__version__ != built_on.VERSION:
        raise OtherFaiss(f"{told}{faiss.__version__} ({faiss.__file__}): {exact}")
    if not built_on.FINGERPRINT:
        return
    folder = pathlib.Path(faiss.__file__).parent
    if faiss_build.has_cuvs(folder):
        others = " ".join(
            each.name for each in faiss_build.owners(folder)
            if each.name != built_on.DISTRIBUTION
        )
        raise OtherFaiss(
            f"{told}a build with cuVS ({folder}): "
            f"`pip uninstall {others or 'faiss-gpu-cuvs'}`, then {exact}"
        )
    for part in _compiled_parts():
        path = faiss_build.loaded_library(part)
        if path is None:
            raise OtherFaiss(
                f"the module 'faiss' ({part}) does not use the library that the "
                f"native part is built on, libfaiss.so of {ours}: {exact}"
            )
        found = faiss_build.SharedLibrary(path).fingerprint()
        if found != built_on.FINGERPRINT:
            raise OtherFaiss(
                f"the native part is built on {ours} with the library of "
                f"{built_on.FINGERPRINT}, and the module 'faiss' uses {path} of "
                f"{found}: {exact}"
            )
    if f"swig_runtime_data{built_on.SWIG_TABLE}" not in sys.modules:
        others = " ".join(
            name for name in sys.modules
            if name.startswith("swig_runtime_data") and "." not in name
        )
        raise OtherFaiss(
            f"{told}made with a SWIG whose types it does not share "
            f"(swig_runtime_data{built_on.SWIG_TABLE} and {others or 'none'}): {exact}"
        )


def _addresses_in_faiss(name: str) -> set[int | None]:
    """Where the compiled parts of the module `faiss` find a function."""
    addresses = set()
    for path in _compiled_parts():
        try:
            function = getattr(ctypes.CDLL(path), name)
        except (AttributeError, OSError):
            continue
        addresses.add(ctypes.cast(function, ctypes.c_void_p).value)
    return addresses


def check_same_faiss() -> None:
    """Compare the library that the native part has loaded, then SWIG's tables.

    Raises
    ------
    OtherFaiss
        With one line that says what is wrong.
    """
    from .._native import swigfaiss_ext as native

    addresses = _addresses_in_faiss(native.faiss_function_name())
    if native.faiss_function_address() not in addresses:
        raise OtherFaiss(
            f"the module 'faiss' ({faiss.__file__}) does not use the library "
            "that the native part is linked to; build faiss_ext on that Faiss"
        )
    if not native.shares_types_with_faiss():
        raise OtherFaiss(
            "the native part and the module 'faiss' were made with versions of "
            "SWIG that do not fit each other (4.0 to 4.3 do, and 4.4 and later "
            "do): build faiss_ext with the one that swigfaiss.py beside "
            f"{faiss.__file__} names"
        )
