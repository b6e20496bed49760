"""The examples in docstrings, run."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from typing import Any

import faiss_ext
import numpy as np


def public_methods(the_class: type) -> Iterator[tuple[str, Any]]:
    """The methods of ours that a class shows, by their full names; not those of
    C++, nor what comes before one of Faiss' own."""
    for name, member in vars(the_class).items():
        if (
            inspect.isfunction(member)
            and not name.startswith("_")
            and member.__module__.startswith("faiss_ext.")
            and "swigfaiss_ext" not in member.__module__
        ):
            yield f"{the_class.__name__}.{name}", member


def check_examples(name: str, documented: Any, **more: Any) -> None:
    """Fail unless a docstring has a section of examples, and these give what they
    say. They see `np`, `faiss` (which is faiss_ext) and `more`."""
    text = inspect.getdoc(documented) or ""
    assert "\nExamples\n--------\n" in text, f"{name} has no examples"
    test = doctest.DocTestParser().get_doctest(
        text, {"np": np, "faiss": faiss_ext, **more}, name, None, 0
    )
    assert test.examples, name
    told: list[str] = []
    doctest.DocTestRunner(verbose=False).run(
        test, out=told.append,
        # Functions of the example may be called when its objects go.
        clear_globs=False)
    assert not told, "".join(told)
