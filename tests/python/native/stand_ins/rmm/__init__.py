"""A stand-in for RMM on the simulated GPU: what the tests use of it, with the
meaning that its documentation gives."""

from . import mr, pylibrmm

__version__ = "25.12.00"
__all__ = ["mr", "pylibrmm"]
