"""The errors of the package: those that the command line shows as one line, and
that of the array entry and of other arguments, with the checks that need no
array library."""

from __future__ import annotations

import contextlib
import numbers
import operator
from collections.abc import Iterator
from typing import Any


class UserError(Exception):
    """A mistake in what was asked for, or a limit of the machine.

    The message is one line that names what was found and what was expected.
    `python -m faiss_ext` prints it without a traceback and exits with 2.
    """


class VectorFileError(UserError, ValueError):
    """A file does not hold vectors in the format that its name promises."""


class InvalidArray(ValueError, TypeError, AssertionError):
    """An argument is no array that the call can take.

    The one exception of the array entry, whatever is wrong: the message names
    the argument, what was found and what would be accepted. It is a
    `ValueError`, a `TypeError` and an `AssertionError` (which Faiss' own Python
    code raises), so code that expects one of them catches it. Nothing was read,
    written or enqueued.
    """


class InvalidDevice(ValueError, RuntimeError):
    """An argument names a GPU that is not there, or none at all, or resources
    that do not go with the GPUs named.

    Raised before Faiss is asked, which would end the process or make an index
    that has lost its vectors. A `RuntimeError` too, as what Faiss raises for
    some of these.
    """


class GpuUnavailable(RuntimeError, AttributeError):
    """Something that needs a GPU, or the native part, was used where it is not.

    The message names it, what is missing and how to get it. It is a
    `RuntimeError`, and an `AttributeError` for programs that find out about GPUs
    by trying Faiss' GPU names, which a Faiss for the CPU does not have.
    """


@contextlib.contextmanager
def faiss_errors(what: str) -> Iterator[None]:
    """Turn an error of Faiss within the block into one line.

    Parameters
    ----------
    what : str
        What failed; begins the line.

    Raises
    ------
    UserError
        Faiss raised an error.
    """
    try:
        yield
    except MemoryError as error:
        raise UserError(f"{what}: there is not enough memory") from error
    except RuntimeError as error:
        # Faiss puts the function, file and expression in front.
        reason = str(error).rpartition(" failed: ")[2]
        raise UserError(f"{what}: {reason}") from error


def check_shape(
    name: str,
    found: tuple[Any, ...],
    wanted: tuple[Any, ...],
    it: str | None = None,
) -> None:
    """Raise InvalidArray unless `name` has the wanted shape, in which None is any
    extent. `it` is what a user writes for the array as one that can be indexed
    (by default its name); the error says with it how to make the shape."""
    if len(found) == len(wanted) and all(
        want in (None, have) for want, have in zip(wanted, found)
    ):
        return
    it = it or name
    needed = ", ".join(
        letter if want is None else str(want) for want, letter in zip(wanted, "nd")
    )
    if len(wanted) == 1:
        needed += ","
    fix = ""
    if len(wanted) == 2 and wanted[1] in (None, *found[-1:]):
        if len(found) == 1:
            fix = f"; one vector is a batch of one: {it}[None, :]"
        elif len(found) > 2:
            fix = f"; its vectors in one batch: {it}.reshape(-1, {found[-1]})"
    raise InvalidArray(f"{name}: shape {found}; needed ({needed}){fix}")


def check_output(
    name: str,
    shape: tuple[Any, ...],
    dtype: str,
    contiguous: bool,
    wanted: tuple[Any, ...] | None,
    dtypes: tuple[str, ...],
) -> None:
    """Raise InvalidArray unless results of the wanted shape (None: any) and one
    of the dtypes can be written to an output."""
    if wanted is not None and tuple(shape) != tuple(wanted):
        found, needed = f"shape {tuple(shape)}", str(tuple(wanted))
    elif dtype not in dtypes:
        found, needed = f"dtype {dtype}", " or ".join(dtypes)
    elif not contiguous:
        found, needed = "with gaps or column-major", "C-contiguous and writable"
    else:
        return
    extents = tuple(shape if wanted is None else wanted)
    raise InvalidArray(
        f"{name}: {found}; an output must be {needed}, such as "
        f"np.empty({extents}, {dtypes[0]!r})"
    )


#: More neighbours, or rows of one array, than anybody stores.
MOST = 2**31 - 1


def whole_number(
    name: str, value: Any, least: int = -(2**63), most: int = 2**63 - 1
) -> int:
    """`value` as an int from `least` to `most`, or InvalidArray with the name of
    the argument. What Python takes as an index is taken."""
    try:
        if isinstance(value, bool):
            # Which Python takes for 0 and 1.
            raise TypeError
        number = operator.index(value)
    except TypeError:
        said = repr(value)
        raise InvalidArray(
            f"{name}: {said if len(said) < 40 else '...'} is of type "
            f"{type(value).__name__}; an int is needed{_as_int(name, value)}"
        ) from None
    if not least <= number <= most:
        raise InvalidArray(
            f"{name}: {number}; {least} or more is needed"
            if number < least
            else f"{name}: {number}; {most} is the most that is taken"
        )
    return number


def real_number(name: str, value: Any) -> float:
    """`value` as a float, or InvalidArray with the name of the argument."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        said = repr(value)
        raise InvalidArray(
            f"{name}: {said if len(said) < 40 else '...'} is of type "
            f"{type(value).__name__}; a float is needed"
        )
    return float(value)


def _as_int(name: str, value: Any) -> str:
    try:
        int(value)
    except Exception:
        return ""
    return f", such as int({name})"


def check_kind(value: Any, kinds: Any, name: str, wanted: str) -> None:
    """Raise TypeError unless `value` is of one of these classes."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name}: {said(value)}; {wanted} is needed")


def refuse_none(what: str, args: tuple[Any, ...]) -> None:
    """Raise TypeError where an argument of a constructor is None, which Faiss
    takes for a pointer."""
    for i, value in enumerate(args, 1):
        if value is None:
            raise TypeError(
                f"{what}: argument {i} is None; leave it out, or give what is "
                "meant"
            )


def said(value: Any) -> str:
    """What an argument is, for people."""
    return "None" if value is None else type(value).__name__
