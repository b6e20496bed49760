"""The check that the module `faiss` and our native part share one Faiss.

Our classes derive from Faiss' in C++ and in Python. With two builds of Faiss in
one process they would be handed to code that knows other layouts.
"""

from __future__ import annotations

import ctypes
import sys

import faiss

from . import swigfaiss_ext as native


def _addresses_in_faiss() -> set[int | None]:
    """Where the compiled parts of the module `faiss` (there is one for each set
    of CPU instructions, and one is loaded) find the function that we ask for."""
    name = native.faiss_function_name()
    addresses = set()
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("faiss._swigfaiss"):
            try:
                function = getattr(ctypes.CDLL(module.__file__), name)
            except (AttributeError, OSError):
                continue
            addresses.add(ctypes.cast(function, ctypes.c_void_p).value)
    return addresses


class OtherFaiss(ImportError):
    """The module `faiss` is not the Faiss that the native part is built on."""


def check_same_faiss() -> None:
    """Compare the version, then the library that is loaded, then SWIG's tables.

    Raises
    ------
    OtherFaiss
        With one line that names both, or says what else is wrong.
    """
    built_on = native.faiss_built_on()
    if faiss.__version__ != built_on:
        raise OtherFaiss(
            f"the native part is built on Faiss {built_on}, and the module "
            f"'faiss' is {faiss.__version__} ({faiss.__file__})"
        )
    if native.faiss_function_address() not in _addresses_in_faiss():
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
