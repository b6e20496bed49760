"""Where the time of a GPU search goes, beside stock Faiss.

Times exact searches of random vectors on a GPU, with stock Faiss and with
faiss_ext in turns, on the same arrays, and splits each search into its stages:
those of faiss_ext by CUDA events, so that waiting for kernels and copying are
told apart; stock Faiss from outside, by what becomes faster when arrays lie on
the GPU already. --n, --k, --nb, --d, --metric and --storage take lists
(1,100,10k): every combination is timed.

Results are compared before anything is timed.

Examples:
  faiss-ext profile --n 1,100 --k 10 --nb 10k --d 32 --seconds 2
  faiss-ext profile --n 100 --k 1,10 --nb 10k --d 32 --repetitions 3 \\
      --json times.json --trace trace.json
"""

from __future__ import annotations

import argparse
import io
import json
from typing import Any

import faiss_ext

from ..._gpus import gpu_count
from ...errors import UserError
from ...profiling import picture
from ...profiling.cases import Case, all_cases
from ...profiling.table import table
from ...profiling.trace import trace
from ..arguments import counts, device_number, positive, seconds, some_of
from ..files.atomic_files import atomic_files
from ..progress import progress

_METRICS = ("l2", "ip")
_STORAGES = ("float32", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    for name, default, text in (
        ("--n", "10k", "queries"),
        ("--k", "100", "neighbours for each query"),
        ("--nb", "1M", "vectors to search in"),
        ("--d", "128", "components of a vector"),
    ):
        parser.add_argument(
            name, type=counts, default=default, metavar="LIST",
            help=f"{text} (default {default})",
        )
    for name, choices in (("--metric", _METRICS), ("--storage", _STORAGES)):
        parser.add_argument(
            name, type=some_of(choices), default=choices[0], metavar="LIST",
            help=f"{' and '.join(choices)} (default {choices[0]})",
        )
    parser.add_argument(
        "--device", type=device_number, default=0, metavar="N",
        help="number of the GPU (default 0)",
    )
    parser.add_argument(
        "--repetitions", type=positive, default=30, metavar="N",
        help="searches of each kind, at most (default 30)",
    )
    parser.add_argument(
        "--seconds", type=seconds, default=30.0, metavar="S",
        help="time for each combination: after it, and three repetitions, none "
        "begins (default 30)",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write all figures"
    )
    parser.add_argument(
        "--trace", metavar="FILE",
        help="write the median searches for Perfetto or chrome://tracing",
    )
    parser.add_argument(
        "--picture", metavar="FILE",
        help="draw them, .png, .svg or .pdf; needs Matplotlib",
    )


def run(args: argparse.Namespace) -> int:
    """Do the job.

    Everything that can be wrong with the arguments, the files and the machine
    is found before any time is spent.

    Raises
    ------
    UserError
        There is no GPU, no native part, no Matplotlib for the picture; a file
        cannot be written; Faiss refuses a search.
    """
    if args.picture:
        picture.check_picture(args.picture)
    _check_machine(args.device)
    cases = all_cases(
        args.nb, args.d, args.metric, args.storage, args.n, args.k
    )
    outputs = [
        (path, content)
        for path, content in (
            (args.json, _as_json),
            (args.trace, lambda document: _as_json(trace(document))),
            (args.picture, lambda document: _drawn(document, args.picture)),
        )
        if path
    ]
    with atomic_files(*(path for path, _ in outputs)) as files:
        document = _measure(cases, args)
        print(table(document))
        for file, (_, content) in zip(files, outputs):
            file.write(content(document))
    return 0


def _check_machine(device: int) -> None:
    count, found = gpu_count()
    if count == 0:
        raise UserError(f"profile times searches on a GPU: {found}")
    if not faiss_ext.has_native:
        raise UserError(
            "profile needs the native part of faiss_ext: "
            f"{faiss_ext.native_problem}"
        )
    if device >= count:
        raise UserError(
            f"GPU {device} cannot be used: {found}, numbered from 0"
        )


def _measure(cases: list[Case], args: argparse.Namespace) -> dict[str, Any]:
    # Needs the native part.
    from ...profiling.measure import measure_all

    total = len(cases) * args.repetitions
    with progress("profiling", total, "repetitions") as advance:
        return measure_all(
            cases, args.device, args.repetitions, args.seconds, advance
        )


def _as_json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def _drawn(document: dict[str, Any], path: str) -> bytes:
    file = io.BytesIO()
    picture.draw(document, path, file)
    return file.getvalue()
