"""Files that appear under their names complete, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import BinaryIO

from .errors import UserError

__all__ = ["AtomicFile", "atomic_files"]


@contextlib.contextmanager
def atomic_files(*paths: str) -> Iterator[list[AtomicFile]]:
    """Write a group of files that appear together.

    Leaving the `with` block normally brings all of them to the disk and
    renames them in the order given; leaving it through any exception, the one
    of Ctrl-C included, removes them and leaves older files of those names
    alone.

    Nothing can rename several files at once. Should the process end between
    two renames, then there is no file of the last name, not even an older
    one: where that file is, all of the group is, and it belongs together.

    Parameters
    ----------
    paths : str
        The names. A symbolic link is followed: what it points to is
        replaced, not the link.

    Yields
    ------
    list of AtomicFile
        One for each name, empty.

    Raises
    ------
    UserError
        The system refuses to create, write or rename a file.
    """
    files = [AtomicFile(path) for path in paths]
    try:
        for file in files:
            file.create()
        yield files
        for file in files:
            file.complete()
        if len(files) > 1:
            files[-1].remove_older()
        for file in files:
            file.rename()
    except BaseException:
        for file in files:
            file.discard()
        raise


class AtomicFile:
    """A file under a temporary name in the folder of its own.

    Every error of the system becomes a UserError with the file's own name.

    Attributes
    ----------
    path : str
        Its name, as it was given.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._final = os.path.realpath(path)
        self._temporary = os.path.join(
            os.path.dirname(self._final),
            f".faiss_ext-{secrets.token_hex(8)}.part",
        )
        self._open: BinaryIO | None = None

    def create(self) -> None:
        """Create the temporary file."""
        with self._naming_errors():
            self._open = open(self._temporary, "xb")

    def seek(self, offset: int) -> None:
        """Go to a byte."""
        with self._naming_errors():
            self._file.seek(offset)

    def write(self, data: bytes | memoryview) -> None:
        """Write all of `data` where the file stands."""
        with self._naming_errors():
            self._file.write(data)

    def complete(self) -> None:
        """Bring the content to the disk and close the file."""
        with self._naming_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def remove_older(self) -> None:
        """Remove the file that has the name now, if there is one."""
        with self._naming_errors(), contextlib.suppress(FileNotFoundError):
            os.unlink(self._final)

    def rename(self) -> None:
        """Let the file appear under its name."""
        with self._naming_errors():
            os.replace(self._temporary, self._final)
        _sync_folder(os.path.dirname(self._final))

    def discard(self) -> None:
        """Remove the temporary file, if it is there."""
        if self._open is not None:
            # What is still buffered may not fit on a full disk either.
            with contextlib.suppress(OSError):
                self._open.close()
        with contextlib.suppress(OSError):
            os.unlink(self._temporary)

    @property
    def _file(self) -> BinaryIO:
        assert self._open is not None, "create() comes first"
        return self._open

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror or error}"
            ) from error


def _sync_folder(folder: str) -> None:
    """Bring renames to the disk, where the file system can do that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
