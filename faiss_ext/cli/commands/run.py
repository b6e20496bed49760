"""Run a Python program that says `import faiss` with faiss_ext in its place.

The program is not changed: SCRIPT is run as `python SCRIPT ARGS` would run it,
and with -m as `python -m SCRIPT ARGS`. Where there is no native part, it runs
with Faiss as it is, and a line on standard error says so.

Examples:
  faiss-ext run script.py --its arguments
  faiss-ext run -m package.module
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys

import faiss

import faiss_ext

from ...errors import UserError

#: The program deals with its own errors and signals.
is_a_program = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "-m", dest="module", action="store_true",
        help="SCRIPT is the name of a module",
    )
    parser.add_argument("script", metavar="SCRIPT")
    parser.add_argument(
        "arguments", metavar="ARGS", nargs=argparse.REMAINDER,
        help="what the program finds in sys.argv",
    )


def run(args: argparse.Namespace) -> int:
    """Run the program; its own exit status, or 0 when it comes to its end.

    Raises
    ------
    UserError
        If there is no such file.
    """
    if not args.module and not os.path.exists(args.script):
        raise UserError(f"{args.script}: no such file")
    if not replace_in_faiss():
        print(
            f"faiss_ext: Faiss runs as it is ({faiss_ext.native_problem})",
            file=sys.stderr,
        )
    sys.argv = [args.script, *args.arguments]
    if args.module:
        sys.path.insert(0, os.getcwd())
        runpy.run_module(args.script, run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(args.script)))
        runpy.run_path(args.script, run_name="__main__")
    return 0


def replace_in_faiss() -> list[str]:
    """Let the module `faiss` of this process hold what replaces its own.

    Modules that are imported later (``faiss.contrib`` among them) find ours;
    what has taken a class out of `faiss` before keeps Faiss' own.

    Returns
    -------
    list of str
        The names replaced; none where there is no native part.
    """
    if not faiss_ext.has_native:
        return []
    from ... import _with_native

    for name, made in _with_native._names.items():
        setattr(faiss, name, made)
    return list(_with_native._names)
