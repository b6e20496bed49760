"""The interpreter ends while threads are in a pool that is Python code, with the
lock of the resources: nobody waits for them."""

import time

import pytest
from programs import run_program

POOL = """
import ctypes
import threading
import numpy as np
import faiss_ext as faiss

sys.setswitchinterval(1e-5)
runtime = ctypes.CDLL(None)  # preloaded


def allocate(nbytes, device, stream):
    pointer = ctypes.c_void_p()
    assert runtime.cudaMalloc(
        ctypes.byref(pointer), ctypes.c_size_t(nbytes)) == 0
    return pointer.value


def deallocate(address, nbytes, device, stream):
    runtime.cudaFree(ctypes.c_void_p(address))


x = np.random.default_rng(1).random((300, 8), dtype="f4")
resources = faiss.PooledGpuResources(allocate, deallocate)
index = faiss.GpuIndexFlatL2(resources, 8)
index.add(x)
# Destroyed by the interpreter's end, under the same lock.
other = faiss.GpuIndexFlatL2(resources, 8)
other.add(x)
begun = threading.Semaphore(0)


def rounds():
    while True:
        index.search(x[:20], 3)
        begun.release()


for _ in range(4):
    threading.Thread(target=rounds, daemon=True).start()
for _ in range(4):
    begun.acquire()
print("done", flush=True)
"""


@pytest.mark.parametrize("attempt", range(6))
def test_a_pool_at_the_end(attempt):
    run_program(POOL)


BLOCKED = """
import threading
import numpy as np
import faiss_ext as faiss

entered = threading.Event()


def allocate(nbytes, device, stream):
    entered.set()
    threading.Event().wait()


def make():
    index = faiss.GpuIndexFlatL2(faiss.PooledGpuResources(allocate, print), 8)
    index.add(np.zeros((3, 8), "f4"))


threading.Thread(target=make, daemon=True).start()
entered.wait()
print("done", flush=True)
"""


def test_a_thread_that_a_pool_blocks_is_not_waited_for():
    begin = time.monotonic()
    run_program(BLOCKED)
    assert time.monotonic() - begin < 8


LOCKED = """
import threading
import numpy as np
import faiss_ext as faiss
from faiss_ext._native import swigfaiss_ext as native

resources = faiss.StandardGpuResources()
index = faiss.GpuIndexFlatL2(resources, 8)
index.add(np.zeros((3, 8), "f4"))
held = threading.Event()


def hold():
    lock = native.ResourcesLock(resources.getResources())
    lock.acquire()
    held.set()
    threading.Event().wait()


threading.Thread(target=hold, daemon=True).start()
held.wait()
print("done", flush=True)
"""


def test_a_thread_that_holds_the_lock_in_python_code():
    run_program(LOCKED)
