"""The least that a search can take, by what this machine was measured to do.

Each bound is a count divided by a measured rate (`ceilings.py`, same run):

- compute: 2 n nb d operations, the matrix product of an exact search by the
  expansion |q - b|^2 = |q|^2 + |b|^2 - 2 q.b, against cuBLAS in the mode that
  Faiss uses; and, one after the other, the traffic of it: 4 nb d bytes, the
  stored vectors read once, and 8 n nb bytes, the distances written and read
  again by the selection (Faiss and the peers do not fuse the two), against a
  copy within GPU memory.
- copy_back: 12 n k bytes, a float32 distance and an int64 label for each
  result; against the link to pinned memory, and no less than the time of the
  smallest copy with its wait. Only with results on the host.
- upload: 4 n d bytes; against the link from pinned memory. Only with queries on
  the host.

They can overlap, so the floor of a search is the greatest of them. Selection of
the k nearest is in none of them: what it takes is measured, by the same search
with all arrays on the GPU (`ON_GPU`).
"""

from __future__ import annotations

BYTES_PER_RESULT = 12

#: Stock Faiss with nothing to copy and no Python.
COMPUTE = "C++ stock GPU"
#: Of these, the least median is the measured computation of a case.
ON_GPU = (COMPUTE, "C++ ours GPU", "stock GPU", "ours GPU")


def floors(ceilings, *, n, k, nb, d, queries_on_host, results_on_host):
    """Seconds by bound; None where the rate was not measured."""
    def seconds(count, rate):
        return count / ceilings[rate] if ceilings.get(rate) else None

    product = seconds(2 * n * nb * d, "gemm_flops")
    traffic = seconds(4 * nb * d + 8 * n * nb, "device_memory_bytes_s")
    bounds = {"compute": None if product is None or traffic is None
              else product + traffic}
    if results_on_host:
        bounds["copy_back"] = copy_back_floor(ceilings, BYTES_PER_RESULT * n * k)
    if queries_on_host:
        bounds["upload"] = seconds(4 * n * d, "link_to_device_bytes_s")
    return bounds


def copy_back_floor(ceilings, nbytes):
    """Seconds that so many bytes take to pinned memory, at best."""
    link = ceilings.get("link_to_host_bytes_s")
    return max(nbytes / link, ceilings.get("copy_call_s") or 0) if link else None


def floor(bounds):
    """The greatest bound in seconds, or None if none is known."""
    known = [seconds for seconds in bounds.values() if seconds]
    return max(known) if known else None


def measured_floor(bounds, compute_s):
    """The same, with the computation as it was measured in place of its bound;
    None if it was not."""
    return floor({**bounds, "compute": compute_s}) if compute_s else None


def copy_to_compute(ceilings, *, k, nb, d):
    """R = 6 k F / (B nb d): the time of the copy-back over that of the
    computation, both at best; n cancels. None where a rate was not measured."""
    flops = ceilings.get("gemm_flops")
    link = ceilings.get("link_to_host_bytes_s")
    return 6 * k * flops / (link * nb * d) if flops and link else None
