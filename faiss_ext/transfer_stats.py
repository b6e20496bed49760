"""What an index of ours has moved, as methods of it."""

from __future__ import annotations

from typing import Any

_NAMES = {
    "copies_to_device": "copiesToDevice",
    "bytes_to_device": "bytesToDevice",
    "copies_to_host": "copiesToHost",
    "bytes_to_host": "bytesToHost",
    "copies_across_devices": "copiesAcrossDevices",
    "bytes_across_devices": "bytesAcrossDevices",
    "host_waits": "hostWaits",
    "device_allocations": "deviceAllocations",
    "pinned_allocations": "pinnedAllocations",
}


def transfer_stats(self: Any) -> dict[str, int]:
    """What this index has moved and waited for, since it was made or since
    `reset_transfer_stats`.

    Returns
    -------
    dict of str to int
        Copies and bytes to the GPU, to the host and between GPUs, host waits,
        and allocations of staging memory. Copies that Faiss makes by itself (in
        `add`) are not in it. Does not wait.
    """
    stats = self.getTransferStats()
    return {
        snake: int(getattr(stats, camel)) for snake, camel in _NAMES.items()
    }


def reset_transfer_stats(self: Any) -> None:
    """Set the counts of `transfer_stats` back to zero."""
    self.resetTransferStats()


METHODS = (transfer_stats, reset_transfer_stats)
