"""Finds what nobody has decided about (`faiss_ext._index.decisions`) of all that
Faiss has for GPUs. Of what is ours each parameter must be, too."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from faiss_ext._index.decisions import (
    FAISS_OWN_GPU_CLASSES,
    FAISS_OWN_GPU_FUNCTIONS,
    FAISS_OWN_GPU_MEMBERS,
    FAISS_OWN_GPU_POINTERS,
    METHODS,  # noqa: F401
)

#: Names that have to do with GPUs. (IndexHNSWCagra is an index on the CPU.)
OF_GPUS = re.compile("gpu|cuda|cuvs|bfknn|bruteforceknn", re.IGNORECASE)

#: Parameters that go to Faiss' own method, for NumPy arrays; refused with arrays
#: on a GPU.
PARAMETERS_FOR_FAISS = {"numeric_type", "xq_train"}

#: Parts of contrib.torch_utils that stay Faiss' own beside ours: what is put into
#: Faiss' classes is called where Faiss' class has it from there, with tensors on
#: the GPU too. Ours takes tensors in `search` and the others without it.
OF_TORCH_UTILS = set("""
    handle_torch_Index torch_replace_method using_stream
    swig_ptr_from_BFloat16Tensor swig_ptr_from_FloatTensor
    swig_ptr_from_HalfTensor swig_ptr_from_IndicesTensor
    swig_ptr_from_IntTensor swig_ptr_from_UInt8Tensor
    torch_replacement_knn torch_replacement_knn_gpu
    torch_replacement_pairwise_distance_gpu
    torch_replacement_range_search torch_replacement_remove_ids
    torch_replacement_sa_decode torch_replacement_sa_encode
    torch_replacement_search_preassigned torch_replacement_update_vectors
    search_methods_common
""".split())


def undecided(stock: ModuleType, ours: ModuleType) -> list[str]:
    """What of the module `stock` that has to do with GPUs nobody has decided
    about, each with the reason that it is thought so."""
    found = []
    for name, theirs in sorted(vars(stock).items()):
        if name.startswith("_") or inspect.ismodule(theirs):
            continue
        is_class = inspect.isclass(theirs)
        if not any(
            OF_GPUS.search(part)
            for part in ([b.__name__ for b in theirs.__mro__] if is_class else [name])
        ) and getattr(theirs, "__module__", "") != "faiss.gpu_wrappers":
            continue
        mine = getattr(ours, name)
        if mine is theirs:
            if name not in (
                FAISS_OWN_GPU_CLASSES if is_class else FAISS_OWN_GPU_FUNCTIONS
            ):
                found.append(f"{name}: Faiss' own, and in no list")
        elif is_class:
            found += _undecided_members(name, theirs, mine)
        else:
            found += _untaken(name, theirs, mine)
    return found


def _undecided_members(name: str, theirs: type, mine: type) -> Iterator[str]:
    for member in dir(theirs):
        if member.startswith("_"):
            continue
        stock = inspect.getattr_static(theirs, member)
        of_ours = inspect.getattr_static(mine, member)
        if of_ours is not stock:
            if inspect.isfunction(stock):
                yield from _untaken(f"{name}.{member}", stock, of_ours)
        elif not (
            member in FAISS_OWN_GPU_MEMBERS | FAISS_OWN_GPU_POINTERS
            or (member.endswith("_c") and hasattr(theirs, member[:-2]))
        ):
            yield f"{name}.{member}: Faiss' own, and in no list"


def _untaken(name: str, theirs: Any, mine: Any) -> Iterator[str]:
    """Parameters that Faiss' function takes and ours does not, where it takes
    them."""
    stock, of_ours = (inspect.signature(f).parameters for f in (theirs, mine))
    if any(p.kind is p.VAR_POSITIONAL for p in stock.values()):
        return  # SWIG's: it goes by what is given
    places = list(of_ours)
    passes_on = any(p.kind is p.VAR_KEYWORD for p in of_ours.values())
    for place, (parameter, kind) in enumerate(
        (p.name, p.kind) for p in stock.values()
    ):
        if parameter not in of_ours:
            if not (passes_on and parameter in PARAMETERS_FOR_FAISS):
                yield f"{name}({parameter}): ours has no such parameter"
        elif kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and not (
            places.index(parameter) == place
            and of_ours[parameter].kind is kind
        ):
            yield f"{name}({parameter}): ours does not take it at place {place}"


def undecided_of_torch_utils(source: str, index_class: type) -> list[str]:
    """The same of the text of ``faiss/contrib/torch_utils.py``, which needs
    PyTorch to be imported; `index_class` is a flat one of ours."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef) or node.name in OF_TORCH_UTILS:
            continue
        method = vars(index_class).get(node.name.removeprefix("torch_replacement_"))
        if method is None:
            found.append(f"torch_utils.{node.name}: in no list, and no method of ours")
            continue
        of_ours = inspect.signature(method).parameters
        arguments = [a.arg for a in node.args.args]
        found += [
            f"torch_utils.{node.name}({name}): ours takes {list(of_ours)}"
            for place, name in enumerate(arguments)
            if list(of_ours)[place:place + 1] != [name]
            or of_ours[name].kind is inspect.Parameter.KEYWORD_ONLY
        ]
    return found
