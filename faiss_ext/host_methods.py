"""Faiss' own methods and functions for arrays of any library in host memory.

Faiss' Python code converts what NumPy converts. What comes before it here: an
array that offers DLPack, an array interface or a buffer is seen through NumPy,
without a copy; one in GPU memory is refused with the mend.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from . import dlpack, host_arrays
from .arrays import array_view, is_on_gpu
from .errors import InvalidArray, check_shape

#: The dtypes of outputs that a caller may give, by method and argument.
_OUTPUTS: dict[str, dict[str, str]] = {
    "search": {"D": "float32", "I": "int64"},
    "search_and_reconstruct": {"D": "float32", "I": "int64", "R": "float32"},
    "search_and_return_codes": {
        "D": "float32", "I": "int64", "codes": "uint8",
    },
    "assign": {"labels": "int64"},
    "reconstruct": {"x": "float32"},
    "reconstruct_n": {"x": "float32"},
    "reconstruct_batch": {"x": "float32"},
    "compute_residual": {"residual": "float32"},
    "compute_residual_n": {"residuals": "float32"},
    "sa_encode": {"codes": "uint8"},
    "sa_decode": {"x": "float32"},
    "normalize_L2": {"x": "float32"},
}

#: Methods whose `x` is a matrix of vectors.
_OF_MATRICES = {
    "add", "add_with_ids", "train", "search", "assign", "range_search",
    "search_and_reconstruct", "search_and_return_codes", "search_preassigned",
    "range_search_preassigned", "sa_encode", "update_vectors", "apply",
    "reverse_transform", "compute_codes", "train_exact",
}
#: Those of them that say by `cast` what a GPU index converts. Host memory
#: always is, as in Faiss.
_WITH_CAST = {
    "add", "add_with_ids", "train", "search", "assign", "search_and_reconstruct",
    "compute_residual", "compute_residual_n",
}

_NOTE = """

Arrays of any library are taken in host memory (NumPy's, or what offers DLPack,
an array interface or a buffer). One in GPU memory is refused: InvalidArray.
"""


def takes_any_host_array(
    current: Callable[[], Callable],
    name: str,
    mend: Callable[[str, Any], str],
    *,
    method: bool,
) -> Callable:
    """A function of Faiss, for arrays of any library.

    Parameters
    ----------
    current : callable
        Gives the function; its name, signature and docstring stay. One that
        somebody else has put there (``contrib.torch_utils``) is called with
        what it is given.
    name : str
        What users call it.
    mend : callable
        Says what to do instead with an array in GPU memory; it is given what is
        called, and the object (None for a function).
    method : bool
        Whether it takes `self`; then `cast` is taken where a GPU index does.
    """
    function = current()
    signature = inspect.signature(function)
    outputs = _OUTPUTS.get(name, {})
    places = [
        (place, parameter, np.dtype(outputs[parameter]))
        for place, parameter in enumerate(signature.parameters)
        if parameter in outputs
    ]
    takes_cast = method and name in _WITH_CAST

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if takes_cast:
            options.pop("cast", None)
        if current() is not function:
            return current()(*args, **options)
        given: dict[int, Any] = {}
        if not (
            _is_ready(name, args, options)
            and _are_outputs_ready(places, args, options)
        ):
            bound = signature.bind(*args, **options)
            args = bound.args
            subject = args[0] if method else None
            given = _prepare(
                bound, name, outputs,
                lambda: mend(_where(name, method, args), subject),
            )
            args, options = bound.args, bound.kwargs
        try:
            result = function(*args, **options)
        except AssertionError as error:
            if error.args:
                raise
            raise InvalidArray(
                f"{_where(name, method, args)}: "
                f"{_shapes(signature, args, options)}; these do not fit "
                "together, or not the object"
            ) from error
        return _with_what_was_given(result, given) if given else result

    if takes_cast:
        call.__signature__ = _with_cast(signature)  # type: ignore[attr-defined]
    call.__doc__ = inspect.cleandoc(function.__doc__ or f"Faiss' {name}.") + _NOTE
    return call


def _where(name: str, method: bool, args: tuple) -> str:
    return f"{type(args[0]).__name__}.{name}" if method else name


def _prepare(
    bound: inspect.BoundArguments,
    name: str,
    outputs: dict[str, str],
    mend: Callable[[], str],
) -> dict[int, Any]:
    """Puts NumPy arrays in the place of others; returns the outputs that were
    given, by the arrays that stand for them."""
    given = {}
    for parameter, value in bound.arguments.items():
        kind = bound.signature.parameters[parameter].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            bound.arguments[parameter] = tuple(
                as_host_array(item, parameter, None, mend) for item in value
            )
            continue
        dtype = outputs.get(parameter)
        found = as_host_array(value, parameter, dtype, mend)
        if dtype and value is not None:
            given[id(found)] = value
        bound.arguments[parameter] = found
    if name in _OF_MATRICES and "x" in bound.arguments:
        _check_matrix(bound.arguments["x"])
    return given


def _is_ready(name: str, args: tuple, options: dict) -> bool:
    """Whether Faiss takes these as they are, where they are inputs."""
    if name in _OF_MATRICES and not (
        len(args) > 1 and type(args[1]) is np.ndarray
    ):
        return False
    return all(
        type(value) in (int, float, bool, type(None))
        or (type(value) is np.ndarray and value.ndim == 2)
        or hasattr(value, "this")
        for value in (*args, *options.values())
    )


def _are_outputs_ready(
    places: list[tuple[int, str, np.dtype]], args: tuple, options: dict
) -> bool:
    """Whether those that are given are what Faiss writes to as it is."""
    for place, parameter, dtype in places:
        value = args[place] if place < len(args) else options.get(parameter)
        # `is`: C has two types of 64 bits, which NumPy takes for equal.
        if value is not None and not (
            type(value) is np.ndarray
            and value.dtype is dtype
            and value.flags.carray
        ):
            return False
    return True


def as_host_array(
    value: Any, name: str, output_dtype: str | None, mend: Callable[[], str]
) -> Any:
    """An array in host memory as NumPy's, without a copy; what is no array, as
    it is. Raises InvalidArray."""
    if value is None or hasattr(value, "this") or isinstance(
        value, (int, float, str, bytes, type)
    ):
        return value
    if is_on_gpu(value):
        raise InvalidArray(f"{name}: in GPU memory; {mend()}")
    is_array = isinstance(value, (np.ndarray, list, tuple)) or (
        dlpack.is_offered(value) or host_arrays.is_array_like(value)
    )
    if not is_array:
        return value
    writable = output_dtype is not None
    view = array_view(value, name, -1, writable=writable)
    if writable and (view.dtype != output_dtype or not view.contiguous):
        raise InvalidArray(
            f"{name}: dtype {view.dtype}, strides {view.strides}; an output is "
            f"{output_dtype} and C-contiguous"
        )
    values = host_arrays.as_numpy(view, name)
    if values.dtype.kind in "iu":
        # C has two types of 64 bits, and Faiss' module knows one of them.
        values = values.view(np.dtype(values.dtype.str))
    return values


def _check_matrix(x: Any) -> None:
    if not isinstance(x, np.ndarray):
        raise InvalidArray(
            f"x: {type(x).__name__}; an array of shape (n, d) is needed"
        )
    check_shape("x", x.shape, (None, None))


def _shapes(signature: inspect.Signature, args: tuple, options: dict) -> str:
    """What was given, for people."""
    said = []
    for name, value in signature.bind(*args, **options).arguments.items():
        if isinstance(value, np.ndarray):
            said.append(f"{name}: {value.dtype} of shape {value.shape}")
        elif isinstance(value, (int, float)):
            said.append(f"{name}: {value}")
    of = args[0] if args else None
    if hasattr(of, "d"):
        said.append(f"d of the {type(of).__name__}: {of.d}")
    return ", ".join(said)


def _with_what_was_given(result: Any, given: dict[int, Any]) -> Any:
    """The result with the caller's own arrays in it."""
    if isinstance(result, tuple):
        return tuple(given.get(id(item), item) for item in result)
    return given.get(id(result), result)


def _with_cast(signature: inspect.Signature) -> inspect.Signature:
    cast = inspect.Parameter(
        "cast", inspect.Parameter.KEYWORD_ONLY, default=False
    )
    return signature.replace(parameters=[*signature.parameters.values(), cast])


def compute_residual(self, x, residual=None, key=None):
    """x minus vector `key`.

    Parameters
    ----------
    x : array_like, shape (d,), float32
    residual : array, optional
        Output of shape (d,), float32.
    key : int

    Returns
    -------
    residual : array, shape (d,), float32
        The given output, or a new NumPy array.

    Notes
    -----
    Takes the pointers that Faiss' method takes, too.
    """
    stock = _stock_method(self, "compute_residual")
    if is_pointer(x):
        return stock(self, x, residual, key)
    x = np.ascontiguousarray(x, "float32")
    residual = np.empty(self.d, "float32") if residual is None else residual
    assert x.shape == residual.shape == (self.d,)
    stock(self, faiss.swig_ptr(x), faiss.swig_ptr(residual), key)
    return residual


def compute_residual_n(self, n, xs, residuals=None, keys=None):
    """xs minus the vectors `keys`.

    Parameters
    ----------
    n : int
        Rows of `xs`.
    xs : array_like, shape (n, d), float32
    residuals : array, optional
        Output of shape (n, d), float32.
    keys : array_like, shape (n,), int64

    Returns
    -------
    residuals : array, shape (n, d), float32
        The given output, or a new NumPy array.

    Notes
    -----
    Takes the pointers that Faiss' method takes, too.
    """
    stock = _stock_method(self, "compute_residual_n")
    if is_pointer(xs):
        return stock(self, n, xs, residuals, keys)
    xs = np.ascontiguousarray(xs, "float32")
    keys = np.ascontiguousarray(keys, "int64")
    if residuals is None:
        residuals = np.empty((n, self.d), "float32")
    assert xs.shape == residuals.shape == (n, self.d) and keys.shape == (n,)
    stock(
        self, n, faiss.swig_ptr(xs), faiss.swig_ptr(residuals),
        faiss.swig_ptr(keys),
    )
    return residuals


def is_pointer(x: Any) -> bool:
    """Whether `x` is a pointer as Faiss' module gives it."""
    return type(x).__name__ == "SwigPyObject" or hasattr(x, "this")


def _stock_method(index: Any, name: str) -> Callable:
    """Faiss' own method of the class of an index."""
    for base in type(index).__mro__:
        if base.__module__.startswith("faiss.") and name in vars(base):
            return vars(base)[name]
    raise AttributeError(name)
