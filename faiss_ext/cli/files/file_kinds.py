"""What a path names, and what a file looks like, for people."""

from __future__ import annotations

import os
import stat

__all__ = ["kind_of", "known_content"]

#: Names of the process's own streams.
_STREAMS = {
    "/dev/stdin": "standard input",
    "/dev/fd/0": "standard input",
    "/proc/self/fd/0": "standard input",
    "/dev/stdout": "standard output",
    "/dev/fd/1": "standard output",
    "/proc/self/fd/1": "standard output",
    "/dev/stderr": "standard error",
    "/dev/fd/2": "standard error",
    "/proc/self/fd/2": "standard error",
}
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device such as a terminal"),
    (stat.S_ISBLK, "a block device"),
)
#: How files of other formats begin.
_BEGINNINGS = (
    (b"\x93NUMPY", "a .npy file"),
    (b"PK\x03\x04", "a zip archive, as .npz files are (save the one array by "
     "numpy.save)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (save the dataset by numpy.save)"),
    (b"PAR1", "a Parquet file (save the vectors by numpy.save)"),
    (b"\x1f\x8b", "compressed by gzip (decompress it first)"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard (decompress it first)"),
    (b"\x80\x02", "a pickle (save the array by numpy.save)"),
    (b"\x80\x03", "a pickle (save the array by numpy.save)"),
    (b"\x80\x04", "a pickle (save the array by numpy.save)"),
    (b"\x80\x05", "a pickle (save the array by numpy.save)"),
)
_TEXT = frozenset(b"\t\n\r") | frozenset(range(32, 127))


def kind_of(path: str, dash: str) -> str | None:
    """What `path` is; None for a regular file. A link is what it leads to.

    Parameters
    ----------
    path : str
    dash : str
        What people mean by the name '-', if there is no such file.

    Raises
    ------
    OSError
        There is nothing of that name, or it cannot be looked at.
    """
    if path in _STREAMS:
        return _STREAMS[path]
    if path == "-" and not os.path.exists(path):
        return dash
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
        return None
    return next((kind for holds, kind in _KINDS if holds(mode)), "no file")


def known_content(head: bytes) -> str | None:
    """What a file that begins with `head` looks like, if that is known."""
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            return kind
    if len(head) >= 8 and _TEXT.issuperset(head):
        return "text (save the numbers by numpy.save)"
    return None
