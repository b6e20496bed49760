"""The errors that the command line shows as one line."""


class UserError(Exception):
    """A mistake in what was asked for, or a limit of the machine.

    The message is one line that names what was found and what was expected.
    `python -m faiss_ext` prints it without a traceback and exits with 2.
    """


class VectorFileError(UserError, ValueError):
    """A file does not hold vectors in the format that its name promises."""
