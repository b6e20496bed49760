"""Files that appear under their names complete, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import secrets
from collections.abc import Iterator
from typing import BinaryIO

from ...errors import UserError

__all__ = ["AtomicFile", "atomic_files"]

_SUFFIX = ".part"


@contextlib.contextmanager
def atomic_files(*paths: str) -> Iterator[list[AtomicFile]]:
    """Write a group of files that appear together.

    Leaving the `with` block normally brings all of them to the disk and
    renames them in the order given; leaving it through any exception, the one
    of Ctrl-C included, removes them and leaves older files of those names
    alone.

    What an earlier process that was killed has left for one of the names is
    removed.

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

    The temporary file is locked for as long as it is written, and its name
    tells whose it is. So what nobody holds a lock on was left by a process that
    was killed, and goes when the next one writes a file of the same name.

    Every error of the system becomes a UserError with the file's own name.

    Attributes
    ----------
    path : str
        Its name, as it was given.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._final = os.path.realpath(path)
        # The name itself may be as long as a name can be.
        name = os.fsencode(os.path.basename(self._final))
        self._prefix = os.path.join(
            os.path.dirname(self._final),
            f".faiss_ext-{hashlib.sha256(name).hexdigest()[:16]}-",
        )
        self._temporary = ""
        self._open: BinaryIO | None = None

    def create(self) -> None:
        """Create the temporary file, and remove those that were left."""
        with self._naming_errors():
            for left in glob.glob(f"{glob.escape(self._prefix)}*{_SUFFIX}"):
                _remove_if_left(left)
            while self._open is None:
                self._temporary = f"{self._prefix}{secrets.token_hex(8)}{_SUFFIX}"
                file = open(self._temporary, "xb")  # noqa: SIM115
                # Another process may have taken it for left before it is locked.
                if _lock(file) is not False and os.fstat(file.fileno()).st_nlink:
                    self._open = file
                else:
                    file.close()

    def seek(self, offset: int) -> None:
        """Go to a byte."""
        with self._naming_errors():
            self._file.seek(offset)

    def write(self, data: bytes | memoryview) -> None:
        """Write all of `data` where the file stands."""
        with self._naming_errors():
            self._file.write(data)

    def complete(self) -> None:
        """Bring the content to the disk."""
        with self._naming_errors():
            self._file.flush()
            os.fsync(self._file.fileno())

    def remove_older(self) -> None:
        """Remove the file that has the name now, if there is one."""
        with self._naming_errors(), contextlib.suppress(FileNotFoundError):
            os.unlink(self._final)

    def rename(self) -> None:
        """Let the file appear under its name."""
        with self._naming_errors():
            os.replace(self._temporary, self._final)
            # Not before: the lock goes with it.
            self._file.close()
        _sync_folder(os.path.dirname(self._final))

    def discard(self) -> None:
        """Remove the temporary file, if it is there."""
        with contextlib.suppress(OSError):
            os.unlink(self._temporary)
        if self._open is not None:
            # What is still buffered may not fit on a full disk either.
            with contextlib.suppress(OSError):
                self._open.close()

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


def _lock(file: BinaryIO) -> bool | None:
    """Lock a file until it is closed or the process ends. False: another has
    it; None: this file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_if_left(path: str) -> None:
    """Remove a temporary file that no process holds a lock on."""
    # For writing: NFS locks no other files.
    with contextlib.suppress(OSError), open(path, "r+b") as file:
        if _lock(file):
            os.unlink(path)


def _sync_folder(folder: str) -> None:
    """Bring renames to the disk, where the file system can do that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
