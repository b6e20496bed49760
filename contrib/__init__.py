"""What works with one other library, imported only when asked for.

`torch_interop`, `cupy_interop` and `rmm_interop` need PyTorch, CuPy or RMM.
What Faiss has in ``faiss.contrib`` is here too, under the same names: the very
modules, not copies.
"""

from . import _faiss_contrib

_faiss_contrib.show_in(__name__, __path__)


def __getattr__(name: str) -> object:
    return _faiss_contrib.attribute(__name__, name)
