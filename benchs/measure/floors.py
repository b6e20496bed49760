"""The least that a search can take, by what this machine was measured to do.

Each bound is a count divided by a measured rate (`ceilings.py`, same run):

- compute: 2 n nb d operations, the matrix product of an exact search by the
  expansion |q - b|^2 = |q|^2 + |b|^2 - 2 q.b; against cuBLAS in the mode that
  Faiss uses.
- database: 4 nb d bytes, the stored vectors read once; against a copy within
  GPU memory.
- copy_back: 12 n k bytes, a float32 distance and an int64 label for each
  result; against the link to pinned memory. Only with results on the host.
- upload: 4 n d bytes; against the link from pinned memory. Only with queries on
  the host.

They can overlap, so the floor of a search is the greatest of them.
"""

from __future__ import annotations

BYTES_PER_RESULT = 12


def floors(ceilings, *, n, k, nb, d, queries_on_host, results_on_host):
    """Seconds by bound; None where the rate was not measured."""
    counts = {
        "compute": (2 * n * nb * d, "gemm_flops"),
        "database": (4 * nb * d, "device_memory_bytes_s"),
    }
    if results_on_host:
        counts["copy_back"] = (
            BYTES_PER_RESULT * n * k, "link_to_host_bytes_s"
        )
    if queries_on_host:
        counts["upload"] = (4 * n * d, "link_to_device_bytes_s")
    return {
        name: count / ceilings[rate] if ceilings.get(rate) else None
        for name, (count, rate) in counts.items()
    }


def floor(bounds):
    """The greatest bound in seconds, or None if none is known."""
    known = [seconds for seconds in bounds.values() if seconds]
    return max(known) if known else None


def copy_to_compute(ceilings, *, k, nb, d):
    """R = 6 k F / (B nb d): the time of the copy-back over that of the
    computation, both at best; n cancels. None where a rate was not measured."""
    flops = ceilings.get("gemm_flops")
    link = ceilings.get("link_to_host_bytes_s")
    return 6 * k * flops / (link * nb * d) if flops and link else None
