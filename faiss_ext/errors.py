"""The errors of the package: those that the command line shows as one line, and
that of the array entry."""


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
