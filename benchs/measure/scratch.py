"""How much GPU memory a search takes for itself."""

from __future__ import annotations

import faiss_ext

from . import memory


class ScratchMeter:
    """An index whose memory comes from a pool that counts. By default such a
    search plans with as much scratch memory as one on Faiss' own resources."""

    def __init__(self, native, base, **config):
        """`config`: members of StagedConfig."""
        self._native = native
        self._lent, self._back, self._peak = {}, [], 0
        self._resources = faiss_ext.PooledGpuResources(self._give, self._take_back)
        staged = faiss_ext.StagedConfig()
        for name, value in config.items():
            setattr(staged, name, value)
        self._index = faiss_ext.GpuIndexFlatL2(
            self._resources, base.shape[1], faiss_ext.GpuIndexFlatConfig(), staged)
        self._index.add(base)

    def bytes_of(self, x, k) -> int:
        """The most that a search has at once, beyond what the index keeps
        afterwards. `x` lies on the GPU, as the results do."""
        results = tuple(
            memory.OnGpu(self._native, (x.shape[0], k), dtype)
            for dtype in ("float32", "int64"))
        self._free()
        self._peak = self._used()
        self._index.search(x, k, D=results[0], I=results[1])
        self._native.synchronize()
        return self._peak - self._used()

    def close(self):
        """Free it all."""
        self._native.synchronize()
        self._index = self._resources = None
        self._free()

    def _give(self, nbytes, device, stream):
        address = self._native.malloc(nbytes)
        self._lent[address] = nbytes
        self._peak = max(self._peak, self._used())
        return address

    def _take_back(self, address, nbytes, device, stream):
        # The GPU may not be done with it.
        del self._lent[address]
        self._back.append(address)

    def _used(self):
        return sum(self._lent.values())

    def _free(self):
        self._native.synchronize()
        while self._back:
            self._native.cuda("cudaFree", self._back.pop())
