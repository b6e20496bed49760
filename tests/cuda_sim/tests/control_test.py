"""cuda_sim.py on the simulator: run with its folder in LD_LIBRARY_PATH."""

import ctypes
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import cuda_sim

with open(cuda_sim._HEADER) as header:
    declared = set(re.findall(r"\bcuda_sim_(\w+)\(", header.read()))
assert declared == set(cuda_sim._FUNCTIONS) | {"get_stats"}, declared ^ set(cuda_sim._FUNCTIONS)

sim = cuda_sim.Simulator()
cuda = sim.runtime
sim.reset()
sim.set_hold_timeout_ms(0)

stream = ctypes.c_void_p()
device = ctypes.c_void_p()
assert cuda.cudaStreamCreateWithFlags(ctypes.byref(stream), 1) == 0
assert cuda.cudaMalloc(ctypes.byref(device), ctypes.c_size_t(16)) == 0
assert sim.is_poison(device, 16)
with sim.held(stream):
    assert cuda.cudaMemsetAsync(device, 7, ctypes.c_size_t(16), stream) == 0
    assert sim.pending_on(stream) == 1
    assert cuda.cudaStreamSynchronize(stream) == 702
assert "is held" in sim.reports()[0]
sim.clear_reports()
assert cuda.cudaStreamSynchronize(stream) == 0
host = ctypes.create_string_buffer(16)
assert sim.read_device(device, host, 16) == 0
assert host.raw == b"\7" * 16
assert sim.counters()["memsets"] == 1
assert sim.calls("cudaMemsetAsync") == 1
assert cuda.cudaFree(device) == 0
assert cuda.cudaStreamDestroy(stream) == 0
assert sim.report_leaks() == 0, sim.reports()
sim.fail_call("cudaMalloc", 1, 2)
assert cuda.cudaMalloc(ctypes.byref(device), ctypes.c_size_t(16)) == 2
assert cuda_sim.environment("/some", {})["LD_LIBRARY_PATH"] == "/some"
