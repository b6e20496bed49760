"""The errors of the package: those that the command line shows as one line, and
those of arguments."""

from __future__ import annotations

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


def check_shape(name: str, found: tuple, wanted: tuple) -> None:
    """Raise InvalidArray unless `name` has the wanted shape, in which None is any
    extent; one vector, where several are wanted, with the fix."""
    if len(found) == 1 and len(wanted) == 2:
        raise InvalidArray(
            f"{name}: one vector of shape {found}; "
            f"give [1, {found[0]}] (such as {name}[None, :])"
        )
    if len(found) != len(wanted) or any(
        want is not None and want != have for want, have in zip(wanted, found)
    ):
        text = ", ".join("n" if want is None else str(want) for want in wanted)
        if len(wanted) == 1:
            text += ","
        raise InvalidArray(f"{name}: shape {found}; needed ({text})")


def check_kind(value: Any, kinds: Any, name: str, wanted: str) -> None:
    """Raise TypeError unless `value` is of one of these classes."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name}: {said(value)}; {wanted} is needed")


def said(value: Any) -> str:
    """What an argument is, for people."""
    return "None" if value is None else type(value).__name__
