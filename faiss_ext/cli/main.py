"""`python -m faiss_ext`, and `faiss-ext` where it is installed: the command line."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

import faiss_ext

from ..errors import UserError
from .commands import info, knn, profile, run

_COMMANDS = {"knn": knn, "profile": profile, "run": run, "info": info}
#: The installed script, which the examples in the help are written with.
_SCRIPT = "faiss-ext"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        0 for success, 2 for an error that the user can fix (with one line on
        standard error), 128 + the number of the signal that stopped it.

    Raises
    ------
    SystemExit
        By argparse: 0 after --help, 2 for wrong arguments.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name need not be valid text.
        sys.stdout.reconfigure(errors="backslashreplace")
    args = _parser().parse_args(argv)
    command = _COMMANDS[args.command]
    status: int
    if getattr(command, "is_a_program", False):
        try:
            status = command.run(args)
            return status
        except UserError as error:
            return _fail(str(error))
    with _signals_as_interrupts() as received:
        try:
            status = command.run(args)
            if sys.stdout is not None:
                sys.stdout.flush()
            return status
        except UserError as error:
            return _fail(str(error))
        except BrokenPipeError:
            _drop_lost_output()
            return 128 + signal.SIGPIPE
        except OSError as error:
            name = f"{error.filename}: " if error.filename else ""
            _drop_lost_output()
            return _fail(f"{name}{error.strerror or error}")
        except MemoryError:
            return _fail("there is not enough memory")
        except KeyboardInterrupt:
            number = received[-1] if received else signal.SIGINT
            _fail(f"stopped by {signal.Signals(number).name}")
            return 128 + number


def _fail(message: str) -> int:
    print("error:", " ".join(message.splitlines()), file=sys.stderr)
    return 2


def _drop_lost_output() -> None:
    """Let what standard output does not take vanish: Python would fail on it
    once more when it exits."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


@contextlib.contextmanager
def _signals_as_interrupts() -> Iterator[list[int]]:
    """Within the block, let each signal that ends the process raise
    KeyboardInterrupt, so that half a result is removed.

    Yields
    ------
    list of int
        The numbers of the signals that came.
    """
    received: list[int] = []

    def stop(number: int, _: object) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    former = {number: signal.getsignal(number) for number in _SIGNALS}
    # What the parent chose to ignore, as nohup does, stays ignored.
    former = {n: f for n, f in former.items() if f is not signal.SIG_IGN}
    for number in former:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    called = os.path.basename(sys.argv[0])
    prog = called if called == _SCRIPT else "python -m faiss_ext"
    parser = _Parser(
        prog=prog,
        description="Exact nearest neighbours with Faiss, on files.",
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"faiss_ext {faiss_ext.__version__}",
    )
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True
    )
    for name, module in _COMMANDS.items():
        text, title, examples = (module.__doc__ or "").partition("Examples:\n")
        command = commands.add_parser(
            name,
            help=text.partition("\n")[0].rstrip("."),
            description=text,
            epilog=title + examples.replace(_SCRIPT, prog),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
    return parser
