"""Faiss' own methods and functions for arrays of any library in host memory.

Faiss' Python code converts what NumPy converts. What comes before it here: an
array with DLPack, an array interface or a buffer is seen through NumPy,
without a copy; one in GPU memory is refused with the fix; what does not fit is told
where Faiss only asserts; the caller's own outputs are put back into the results.
Searches among no vectors are answered here for indexes on the CPU. A method that
somebody else has put into Faiss' class (``contrib.torch_utils``) is called as it is.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from .._interop import dlpack, host
from .._interop.dlpack import is_on_gpu
from .._interop.take import array_view
from ..errors import (
    MOST,
    InvalidArray,
    check_output,
    check_shape,
    real_number,
    whole_number,
)
from .decisions import Arrays
from .nested import leaves

#: Arguments that are vectors of ids: whole numbers of 64 bits.
_IDS = {"ids", "key", "keys"}
#: Indexes that know vectors by their place alone, and read whatever a key points
#: at.
_BY_PLACE = tuple(
    getattr(faiss, name) for name in ("IndexFlatCodes", "GpuIndexFlat")
    if hasattr(faiss, name)
)
#: Indexes that search as many vectors as they say they have.
_BY_COUNT = tuple(
    getattr(faiss, name) for name in (
        "IndexFlatCodes", "IndexFastScan", "IndexHNSW", "IndexNNDescent",
        "IndexNSG",
    )
    if hasattr(faiss, name)
)
#: Arguments that are whole numbers, and from where to where they reach.
_WHOLE = {
    "k": (1, MOST),
    "n": (0, 2**63 - 1),
    "n0": (-(2**63), 2**63 - 1),
    "ni": (-(2**63), 2**63 - 1),
    "key": (-(2**63), 2**63 - 1),
}

_NOTE = """

Arrays of any library are taken in host memory (NumPy's, or what has DLPack,
an array interface or a buffer). One in GPU memory is refused: InvalidArray.
"""


def takes_any_host_array(
    current: Callable[[], Callable[..., Any]],
    name: str,
    arrays: Arrays,
    fix: Callable[[str, Any], str],
    *,
    method: bool,
    around: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
    | None = None,
) -> Callable[..., Any]:
    """A function of Faiss, for arrays of any library.

    Parameters
    ----------
    current : callable
        Gives the function; its name, signature and docstring stay. One that
        somebody else has put there (``contrib.torch_utils``) is called with
        what it is given.
    name : str
        What users call it.
    arrays : Arrays
        What is known of its arguments.
    fix : callable
        Says what to do instead with an array in GPU memory; it is given what is
        called, and the object (None for a function).
    method : bool
        Whether it takes `self`; then `cast` is taken where a GPU index does.
    around : callable, optional
        Calls the function with what it gets; by default nothing comes before or
        behind that.
    """
    around = around or _call
    function = current()
    signature = inspect.signature(function)
    outputs = arrays.outputs
    whole = {
        parameter: _WHOLE[parameter] for parameter in signature.parameters
        if parameter in _WHOLE and parameter != arrays.rows
    }
    places = {
        parameter: place for place, parameter in enumerate(signature.parameters)
        if parameter in outputs or parameter in whole or parameter == "thresh"
    }
    dtypes = {p: np.dtype(dtype) for p, (dtype, _) in outputs.items()}
    takes_cast = method and arrays.cast

    def is_ready(args: tuple[Any, ...], options: dict[str, Any]) -> bool:
        """Whether Faiss takes these as they are."""
        if not _are_ready(arrays, args, options):
            return False
        for parameter, place in places.items():
            if place >= len(args) and parameter not in options:
                continue
            value = args[place] if place < len(args) else options[parameter]
            if parameter in whole:
                least, most = whole[parameter]
                if type(value) is not int or not least <= value <= most:
                    return False
            elif parameter == "thresh":
                if type(value) is not float or isinstance(
                    args[0], faiss.IndexBinary
                ):
                    return False
            elif value is None:
                continue
            # `is`: C has two types of 64 bits, which NumPy takes for equal.
            elif not (
                type(value) is np.ndarray
                and value.dtype is dtypes[parameter]
                and value.flags.carray
            ):
                return False
        return True

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if takes_cast:
            options.pop("cast", None)
        if current() is not function:
            return current()(*args, **options)
        given: dict[int, Any] = {}
        if not is_ready(args, options):
            bound = signature.bind(*args, **options)
            args = bound.args
            subject = args[0] if method else None
            asked = dict(bound.arguments)
            given = _prepare(
                bound, arrays,
                lambda: fix(_where(name, method, args), subject),
            )
            for parameter, range_ in whole.items():
                if parameter in asked:
                    bound.arguments[parameter] = whole_number(
                        parameter, asked[parameter], *range_
                    )
            if "thresh" in asked:
                # Of binary indexes it counts bits.
                judge = (
                    whole_number if isinstance(subject, faiss.IndexBinary)
                    else real_number
                )
                bound.arguments["thresh"] = judge("thresh", asked["thresh"])
            for parameter in _IDS & asked.keys():
                if asked[parameter] is None and arrays.ids:
                    # Says that None is no array.
                    host.view(None, parameter, False)
            _check_shapes(bound, arrays, subject, asked)
            if "key" in asked:
                _check_keys(bound.arguments["key"], subject)
            args, options = bound.args, bound.kwargs
        if name in _NONE_FOUND and _is_among_none(name, args, options):
            bound = signature.bind(*args, **options)
            subject = args[0] if method else None
            _check_shapes(bound, arrays, subject, bound.arguments)
            _search_for_none(function, bound)
            result = _NONE_FOUND[name](bound.arguments, subject)
            return _with_what_was_given(result, given) if given else result
        try:
            result = around(function, args, options)
        except AssertionError as error:
            if error.args:
                raise
            bound = signature.bind(*args, **options)
            _check_shapes(
                bound, arrays, args[0] if method else None, bound.arguments
            )
            raise InvalidArray(
                f"{_where(name, method, args)}: "
                f"{_said(bound, args)}; these do not fit "
                "together, or not the object"
            ) from error
        return _with_what_was_given(result, given) if given else result

    if takes_cast:
        call.__signature__ = _with_cast(signature)  # type: ignore[attr-defined]
    call.__doc__ = inspect.cleandoc(function.__doc__ or f"Faiss' {name}.") + _NOTE
    return call


def _call(
    function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    return function(*args, **options)


def _where(name: str, method: bool, args: tuple[Any, ...]) -> str:
    return f"{type(args[0]).__name__}.{name}" if method else name


def _prepare(
    bound: inspect.BoundArguments, arrays: Arrays, fix: Callable[[], str]
) -> dict[int, Any]:
    """Puts NumPy arrays in the place of others; returns the outputs that were
    given, by the arrays that stand for them."""
    given = {}
    for parameter, value in bound.arguments.items():
        kind = bound.signature.parameters[parameter].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            bound.arguments[parameter] = tuple(
                as_host_array(item, parameter, None, fix) for item in value
            )
            continue
        dtype = arrays.outputs.get(parameter, (None,))[0]
        found = as_host_array(value, parameter, dtype, fix)
        if dtype and value is not None:
            given[id(found)] = value
        if isinstance(found, np.ndarray) and (
            (parameter in _IDS and found.ndim)
            or parameter in set(arrays.ids) - _IDS
        ):
            check_shape(parameter, found.shape, (None,))
            found = host.converted(found, parameter, "int64")
        bound.arguments[parameter] = found
    _fill_in_none(bound, arrays)
    return given


def _are_ready(
    arrays: Arrays, args: tuple[Any, ...], options: dict[str, Any]
) -> bool:
    """Whether Faiss takes these as they are, where they are inputs."""
    if arrays.ids:
        return False
    if arrays.matrices == ("x",):
        if len(args) < 2 or type(args[1]) is not np.ndarray:
            return False
        if isinstance(args[0], faiss.IndexBinary) and args[1].dtype != np.uint8:
            return False
    elif arrays.matrices and not (
        len(args) > 1 and type(args[0]) is type(args[1]) is np.ndarray
    ):
        return False
    return all(
        type(value) in (int, float, bool, type(None))
        or (
            type(value) is np.ndarray
            and value.ndim == 2
            and value.dtype.kind in "fiub"
        )
        or hasattr(value, "this")
        for value in (*args, *options.values())
    )


def as_host_array(
    value: Any, name: str, output_dtype: str | None, fix: Callable[[], str]
) -> Any:
    """An array in host memory as NumPy's, without a copy; what is no array, as
    it is. Raises InvalidArray."""
    if value is None or hasattr(value, "this") or (
        not output_dtype
        and isinstance(value, (int, float, str, bytes, type))
    ):
        return value
    if is_on_gpu(value):
        raise InvalidArray(f"{name}: in GPU memory; {fix()}")
    is_array = output_dtype or isinstance(value, (np.ndarray, list, tuple)) or (
        dlpack.is_supported(value) or host.is_array_like(value)
    )
    if not is_array:
        return value
    writable = output_dtype is not None
    view = array_view(value, name, -1, writable=writable)
    if output_dtype:
        check_output(
            name, view.shape, view.dtype, view.contiguous, None, (output_dtype,)
        )
    values = host.as_numpy(view, name)
    if values.dtype.kind in "iu":
        # C has two types of 64 bits, and Faiss' module knows one of them.
        values = values.view(np.dtype(values.dtype.str))
    return values


def _width(subject: Any, arrays: Arrays) -> int | None:
    """How many columns the matrix `x` of a method has, where the object says."""
    said = (
        arrays.columns or ("code_size" if isinstance(subject, faiss.IndexBinary)
        else "d_in" if hasattr(subject, "d_in")
        else "d")
    )
    width = getattr(subject, said, None)
    return width if isinstance(width, int) else None


def _fill_in_none(bound: inspect.BoundArguments, arrays: Arrays) -> None:
    """A batch of none, such as ``[]``, has as many columns as are needed."""
    arguments = bound.arguments

    def fill_in(parameter: str, columns: int | None, dtype: str) -> None:
        array = arguments.get(parameter)
        if isinstance(array, np.ndarray) and array.shape == (0,):
            arguments[parameter] = np.empty((0, columns or 0), dtype)

    if arrays.matrices == ("x",):
        subject = next(iter(arguments.values()))
        binary = isinstance(subject, faiss.IndexBinary)
        fill_in("x", _width(subject, arrays), "uint8" if binary else "float32")
    elif arrays.matrices:
        one, other = arrays.matrices
        for parameter, like in ((one, other), (other, one)):
            shape: Any = getattr(arguments.get(like), "shape", ())
            columns = shape[1] if len(shape) > 1 else 0
            fill_in(parameter, columns, "float32")


def _check_shapes(
    bound: inspect.BoundArguments,
    arrays: Arrays,
    subject: Any,
    asked: dict[str, Any],
) -> None:
    """Refuse arrays of which Faiss would only assert that they fit; `asked` are
    the arguments as the caller gave them."""
    arguments = bound.arguments
    d = _width(subject, arrays)
    matrices = arrays.matrices
    if matrices == ("x",) and "x" not in arguments:
        matrices = ()
    for parameter in matrices:
        x = arguments.get(parameter)
        if not isinstance(x, np.ndarray):
            # Says what it is.
            x = host.view(x, parameter, False).owner
        check_shape(
            parameter, x.shape, (None, d),
            host.indexable(asked[parameter], parameter),
        )
        if isinstance(subject, faiss.IndexBinary) and x.dtype != np.uint8:
            raise InvalidArray(
                f"{parameter}: dtype {x.dtype}; uint8 is needed, of 8 bits each, "
                f"such as np.packbits({parameter} > 0, axis=1)"
            )
        d = x.shape[1]
    of_rows = arguments.get(arrays.rows)
    rows = np.shape(of_rows)[:1] if isinstance(of_rows, np.ndarray) else ()
    for parameter in matrices and _IDS & arguments.keys():
        if isinstance(arguments[parameter], np.ndarray):
            check_shape(parameter, arguments[parameter].shape, rows)
    extents = {
        "n": arguments.get("n", *rows or (0,)),
        "k": arguments.get("k", 1),
        "d": d,
        "m": arguments.get("ni"),
    }
    if extents["m"] == -1:
        extents["m"] = subject.ntotal - arguments.get("n0", 0)
    for output, (dtype, letters) in arrays.outputs.items():
        value = arguments.get(output)
        if letters and isinstance(value, np.ndarray):
            check_output(
                output, value.shape, str(value.dtype), value.flags.c_contiguous,
                tuple(extents[letter] for letter in letters), (dtype,),
            )


def _check_keys(key: Any, subject: Any) -> None:
    if not isinstance(subject, _BY_PLACE):
        return
    keys = np.atleast_1d(key)
    # For several vectors on a GPU, -1 stands for none.
    least = -1 if np.ndim(key) and not _is_on_host(subject) else 0
    outside = keys[(keys < least) | (keys >= subject.ntotal)]
    if outside.size:
        raise InvalidArray(
            f"key: {outside[0]}; {least} or more is needed, and less than the "
            f"{subject.ntotal} vectors that are stored"
        )


def _is_on_host(index: Any) -> bool:
    return not isinstance(index, getattr(faiss, "GpuIndex", ()))


def _is_among_none(
    name: str, args: tuple[Any, ...], options: dict[str, Any]
) -> bool:
    """Whether a search is one among no vectors. (Faiss 1.7.3 then leaves the
    results of 20 queries or more as they are, which indexes that hold a flat
    one take for labels; others end the process, or give any distance.)"""
    if name == "knn":
        return len(args[1] if len(args) > 1 else options["xb"]) == 0
    index = args[0]
    return isinstance(index, faiss.Index) and index.is_trained and all(
        map(_is_empty, leaves(index))
    )


def _is_empty(index: Any) -> bool:
    """Whether an index that holds no others has nothing to search, where that is
    certain."""
    if index.ntotal:
        return False
    if isinstance(index, faiss.IndexIVF):
        lists: Any = index.invlists
        return lists is not None and bool(lists.compute_ntotal() == 0)
    return isinstance(index, _BY_COUNT)


def _search_for_none(
    function: Callable[..., Any], bound: inspect.BoundArguments
) -> None:
    """Let Faiss judge the arguments that are no arrays."""
    arguments = {
        name: value for name, value in bound.arguments.items()
        if name not in ("D", "I", "R", "labels")
    }
    queries = "xq" if "xq" in arguments else "x"
    arguments[queries] = arguments[queries][:0]
    asked = inspect.BoundArguments(bound.signature, arguments)
    function(*asked.args, **asked.kwargs)


def _output(
    given: dict[str, Any], name: str, shape: tuple[Any, ...], dtype: str
) -> np.ndarray:
    return np.empty(shape, dtype) if given.get(name) is None else given[name]


def _find_none(
    given: dict[str, Any], index: Any
) -> tuple[np.ndarray, np.ndarray]:
    metric = (
        given.get("metric", faiss.METRIC_L2) if index is None
        else index.metric_type
    )
    shape = len(given["xq" if index is None else "x"]), given["k"]
    D = _output(given, "D", shape, "float32")
    I = _output(given, "I", shape, "int64")
    farthest = np.finfo("float32").max
    D.fill(-farthest if _is_similarity(metric) else farthest)
    I.fill(-1)
    return D, I


def _is_similarity(metric: int) -> bool:
    """Whether more of a metric is nearer."""
    judge = getattr(faiss, "is_similarity_metric", None)
    return bool(
        judge(metric) if judge else metric == faiss.METRIC_INNER_PRODUCT
    )


def _assign_none(given: dict[str, Any], index: Any) -> np.ndarray:
    shape = len(given["x"]), given.get("k", 1)
    labels = _output(given, "labels", shape, "int64")
    labels.fill(-1)
    return labels


def _reconstruct_none(given: dict[str, Any], index: Any) -> tuple[Any, ...]:
    D, I = _find_none(given, index)
    R = _output(given, "R", (*I.shape, index.d), "float32")
    # As Faiss marks vectors that are not there.
    R.fill(np.nan)
    return D, I, R


#: What is found where nothing is stored, by the arguments and the index.
_NONE_FOUND: dict[str, Callable[[dict[str, Any], Any], Any]] = {
    "assign": _assign_none,
    "knn": _find_none,
    "search": _find_none,
    "search_and_reconstruct": _reconstruct_none,
}


def _said(bound: inspect.BoundArguments, args: tuple[Any, ...]) -> str:
    """What was given, for people."""
    said = []
    for name, value in bound.arguments.items():
        if isinstance(value, np.ndarray):
            said.append(f"{name}: {value.dtype} of shape {value.shape}")
        elif isinstance(value, (int, float)):
            said.append(f"{name}: {value}")
    of: Any = args[0] if args else None
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


def compute_residual(
    self: Any, x: Any, residual: Any = None, key: Any = None
) -> Any:
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
    key = whole_number("key", key)
    x = np.ascontiguousarray(x, "float32")
    residual = np.empty(self.d, "float32") if residual is None else residual
    assert x.shape == residual.shape == (self.d,)
    stock(self, faiss.swig_ptr(x), faiss.swig_ptr(residual), key)
    return residual


def compute_residual_n(
    self: Any, n: Any, xs: Any, residuals: Any = None, keys: Any = None
) -> Any:
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


def _stock_method(index: Any, name: str) -> Callable[..., Any]:
    """Faiss' own method of the class of an index."""
    for base in type(index).__mro__:
        if base.__module__.startswith("faiss.") and name in vars(base):
            method: Callable[..., Any] = vars(base)[name]
            return method
    raise AttributeError(name)
