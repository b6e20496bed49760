"""DLPack's table of C functions, made by hand: what a type offers, right or
wrong, with Python behind the functions; and a library whose arrays have one."""

from __future__ import annotations

import ctypes
import types

import numpy as np
from dlpack_capsules import CUDA, FLOAT32, INT64, Loan

_api = ctypes.pythonapi
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]

# Called with the interpreter's lock.
_Lend = ctypes.PYFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p))
_CurrentStream = ctypes.PYFUNCTYPE(
    ctypes.c_int, ctypes.c_int32, ctypes.c_int32,
    ctypes.POINTER(ctypes.c_void_p))

#: C functions of Python's own that can stand in a table. The first returns what
#: ``bool(array)`` gives, 0 or 1, or -1 with the exception that it raised, and
#: leaves the result alone; the second sets an exception and returns 0.
TRUTH = ctypes.cast(_api.PyObject_IsTrue, ctypes.c_void_p).value
RAISES_AND_SUCCEEDS = ctypes.cast(_api.PyErr_BadArgument, ctypes.c_void_p).value


class _Functions(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("previous", ctypes.c_void_p),
        ("allocate", ctypes.c_void_p),
        ("lend", ctypes.c_void_p),
        ("take", ctypes.c_void_p),
        ("describe", ctypes.c_void_p),
        ("current_stream", ctypes.c_void_p),
    ]


class Table:
    """A table; the object must outlive the type that offers its `capsule`.

    lend : callable of an array that gives a `Loan`, None to fail without an
        exception, or both what it puts into the result and its status; or the
        address of a C function; None for none.
    current_stream : callable of (device type, number) that gives a handle (0:
        the default stream), or None to fail; otherwise as `lend`.
    """

    def __init__(
        self,
        lend,
        current_stream,
        *,
        version=(1, 3),
        previous=None,
        name=b"dlpack_exchange_api",
    ):
        self._kept = [previous]
        self._name = ctypes.create_string_buffer(name)
        self.functions = _Functions(
            *version,
            previous and ctypes.addressof(previous.functions),
            lend=self._address(_Lend, lend, self._lend),
            current_stream=self._address(
                _CurrentStream, current_stream, self._stream),
        )

    @property
    def capsule(self):
        return _api.PyCapsule_New(
            ctypes.addressof(self.functions), self._name, None)

    def _address(self, kind, function, wrapped):
        if not callable(function):
            return function
        made = kind(wrapped(function))
        self._kept.append(made)
        return ctypes.cast(made, ctypes.c_void_p).value

    @staticmethod
    def _lend(function):
        def call(array, out):
            loan = function(ctypes.cast(array, ctypes.py_object).value)
            loan, status = loan if isinstance(loan, tuple) else (
                loan, 0 if loan else -1)
            if loan:
                out[0] = ctypes.addressof(loan.managed)
            return status

        return call

    @staticmethod
    def _stream(function):
        def call(kind, number, out):
            handle = function(kind, number)
            if handle is None:
                return -1
            out[0] = handle
            return 0

        return call


HALF = (2, 16, 1)
#: What a library is `asked` for one array: by the table, and by its methods.
TABLE = ["lend", "stream"]
METHODS = ["__dlpack_device__", "__dlpack__"]


class Library:
    """A made-up array library. `asked` lists what of it was asked; `loans` is
    all that it has lent; `stream` is its current stream, 0 the default one."""

    def __init__(self, simulator, gpu_array, stream=0):
        self.simulator, self.gpu_array, self.stream = simulator, gpu_array, stream
        self.asked, self.loans = [], []
        self._tables = []
        self.Array = self.new_type()

    def new_type(self, base=None, table=True, **members):
        """A type with a table of its own; `table` may be options of `Table`."""
        if base is None:
            base = types.new_class("Base", (Array,))
            base.library = self
        if table:
            options = {"lend": self.lend, "current_stream": self.current_stream,
                       **(table if table is not True else {})}
            self._tables.append(Table(**options))
            members.setdefault(
                "__dlpack_c_exchange_api__", self._tables[-1].capsule)
        return type("Array", (base,), members)

    def make(self, values, array_type=None, **loan):
        loan.setdefault("dtype", {
            "float32": FLOAT32, "int64": INT64, "float16": HALF,
        }[values.dtype.name])
        return (array_type or self.Array)(
            self.gpu_array(values), values.shape, loan)

    def outputs(self, n, k, array_type=None):
        return (self.make(np.zeros((n, k), "float32"), array_type),
                self.make(np.zeros((n, k), "int64"), array_type))

    def lend(self, array):
        self.asked.append("lend")
        return self.loan_of(array)

    def loan_of(self, array):
        self.loans.append(Loan(
            array.memory._pointer, array.shape,
            **{"version": (1, 3), **array.loan}))
        return self.loans[-1]

    def current_stream(self, kind, number):
        assert kind == CUDA
        self.asked.append("stream")
        return self.stream

    @property
    def deleted(self):
        return [loan.deleted for loan in self.loans]


class Array:
    """What all have: the methods of DLPack."""

    library = None

    def __init__(self, memory, shape, loan):
        self.memory, self.shape, self.loan = memory, shape, loan

    def __dlpack_device__(self):
        self.library.asked.append("__dlpack_device__")
        return self.loan.get("device", (CUDA, 0))

    def __dlpack__(self, **options):
        self.library.asked.append("__dlpack__")
        return self.library.loan_of(self).capsule()

    @property
    def __cuda_array_interface__(self):
        self.library.asked.append("__cuda_array_interface__")
        raise AttributeError
