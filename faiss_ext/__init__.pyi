# What faiss_ext adds to Faiss or puts in the place of its own (_with_native.pyi), and
# everything else that `faiss` exports, under Faiss' own types: those of its
# stubs, which it has from 1.15 on, or `Any` with an older one. All names are
# there on every machine; what needs a GPU raises RuntimeError when it is used
# without.
#
# Ours are imported before and behind Faiss': of two imports of a name mypy takes
# the first, and pyright the last.

from typing import Any

from ._with_native import *
from faiss import *  # type: ignore[assignment, no-redef]
from ._with_native import *

__version__: str
has_native: bool
native_problem: str | None

# What Faiss has and its stubs do not name, such as most of its GPU classes.
def __getattr__(name: str) -> Any: ...
