"""The methods of our index classes that tell what a call did: which copies it made,
and where its time went."""

from __future__ import annotations

from typing import Any, TypedDict, cast

from .._index.search import call_on, count, labels_fit_int32
from ..memory.pinned import empty_results
from .search_profile import (
    PATHS,
    ComputeSpan,
    ComputeStage,
    SearchProfile,
    StageSpan,
)


def profile_search(
    self: Any,
    x: Any,
    k: Any,
    *,
    params: Any = None,
    D: Any = None,
    I: Any = None,
    cast: bool = False,
) -> tuple[Any, Any, SearchProfile]:
    """`search`, and where its time went.

    Parameters
    ----------
    x, k, params, D, I, cast
        As `search`.

    Returns
    -------
    D, I : array
        As `search`.
    profile : SearchProfile
        The stages of each tile: what the GPU does by CUDA events, what the host
        does by its clock. Of the exact engine what it computes, stage by stage,
        with the least time that the GPU needs for each.

    Raises
    ------
    InvalidArray, RuntimeError
        As `search`.

    Notes
    -----
    Returns when the outputs are complete, wherever they lie. Waits for the
    GPU a few times more than `search`, to compare the clocks, and records two
    events for each stage of a tile, and one for each of the exact engine; so it
    takes a little longer. Earlier work
    on the index's stream is waited for first and not counted. What Python does
    before and after is not in the profile.

    Examples
    --------
    >>> index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> D, I, profile = index.profile_search(np.eye(4, dtype="float32")[:2], 1)
    >>> I.ravel(), profile.tiles
    (array([0, 1]), 1)
    >>> list(profile.busy())
    ['host read', 'upload', 'compute', 'copy-back', 'host copy']

    By the exact engine:

    >>> config = faiss.StagedConfig()
    >>> config.search = "exact"
    >>> index = faiss.GpuIndexFlatL2(
    ...     faiss.StandardGpuResources(), 4, faiss.GpuIndexFlatConfig(), config)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> *_, profile = index.profile_search(np.eye(4, dtype="float32")[:2], 1)
    >>> [stage.name for stage in profile.compute_stages]
    ['scan cut', 'scan', 'scan results']
    >>> profile.paths
    {'certified': 2, 'widened': 0, 'last path': 0}
    """
    call = call_on(self)
    query = call.input(x, "x", (None, self.d), "float32", cast=cast)
    shape = (query.shape[0], count(k))
    if D is None and I is None and not query.view.on_gpu:
        # As `search` does.
        D, I, address = empty_results(*shape)
        made = self.profile_search_packed_c(
            shape[0], query.pointer, shape[1], address, params
        )
        return D, I, _as_profile(made)
    distances = call.output(D, "D", query, shape, "float32", narrow=True)
    labels = call.output(
        I, "I", query, shape, "int64", narrow=labels_fit_int32(self)
    )
    found: list[Any] = []
    call.run(
        lambda: found.append(
            self.profile_search_c(
                shape[0],
                query.pointer,
                shape[1],
                distances.pointer,
                labels.pointer,
                params,
            )
        )
    )
    return distances.array, labels.array, _as_profile(found[0])


def _as_profile(native: Any) -> SearchProfile:
    return SearchProfile(
        (StageSpan(*span) for span in native.spans_c()),
        native.seconds,
        native.clockError,
        native.tiles,
        native.plan,
        compute_spans=(
            ComputeSpan(*span) for span in native.compute_spans_c()
        ),
        compute_stages=(
            ComputeStage(name, spans, seconds, _known(floor))
            for name, spans, seconds, floor in native.compute_stages_c()
        ),
        compute_plan=native.computePlan,
        paths=dict(zip(PATHS, native.paths_c())) or None,
        floor=_known(native.floor),
        peaks=native.peaks,
    )


def _known(seconds: float) -> float | None:
    return None if seconds < 0 else seconds


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
    "certified_queries": "certifiedQueries",
    "widened_queries": "widenedQueries",
    "last_path_queries": "lastPathQueries",
}


class TransferStats(TypedDict):
    """What `transfer_stats` returns."""

    copies_to_device: int
    bytes_to_device: int
    copies_to_host: int
    bytes_to_host: int
    copies_across_devices: int
    bytes_across_devices: int
    host_waits: int
    device_allocations: int
    pinned_allocations: int
    certified_queries: int
    widened_queries: int
    last_path_queries: int
    searched_by: str


def transfer_stats(self: Any) -> TransferStats:
    """What this index has moved and waited for, since it was made or since
    `reset_transfer_stats`, and by what it was searched.

    Returns
    -------
    dict
        Of int, by name: copies and bytes to the GPU, to the host and between
        GPUs, host waits, and allocations of staging memory. Copies that Faiss
        makes by itself (in `add`) are not in it.

        Of the exact engine: ``certified_queries``, whose results a certificate
        has shown to be right; ``widened_queries``, the same in a second round
        of filtering; ``last_path_queries``, which were compared with
        every vector. The GPU counts them: they are whole once the index's
        stream has passed the searches. Those of a search that began anew, for
        want of memory, count again.

        ``searched_by``, a str: what the last search was made by, 'the exact
        engine' or "Faiss' kernels", with the reason where the former was asked
        for; '' before the first one.

    Notes
    -----
    Does not wait. Which kernels search says ``StagedConfig.search``, 'exact' or
    'faiss', or the environment variable FAISS_EXT_SEARCH when an index is made;
    where neither does, the exact engine on GPUs of compute capability 9.0 and
    Faiss' own elsewhere.

    Examples
    --------
    >>> index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> index.reset_transfer_stats()
    >>> _ = index.search(np.eye(4, dtype="float32")[:2], 1)
    >>> stats = index.transfer_stats()
    >>> stats["bytes_to_device"], stats["host_waits"]
    (32, 1)

    By the exact engine:

    >>> config = faiss.StagedConfig()
    >>> config.search = "exact"
    >>> index = faiss.GpuIndexFlatL2(
    ...     faiss.StandardGpuResources(), 4, faiss.GpuIndexFlatConfig(), config)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> _ = index.search(np.eye(4, dtype="float32")[:2], 1)
    >>> index.transfer_stats()["searched_by"]
    'the exact engine'
    """
    stats = self.getTransferStats()
    counts = {
        snake: int(getattr(stats, camel)) for snake, camel in _NAMES.items()
    }
    return cast(TransferStats, {**counts, "searched_by": stats.searchedBy})


def reset_transfer_stats(self: Any) -> None:
    """Set the counts of `transfer_stats` back to zero.

    Examples
    --------
    >>> index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> index.reset_transfer_stats()
    >>> index.transfer_stats()["host_waits"]
    0
    """
    self.resetTransferStats()


METHODS = (profile_search, transfer_stats, reset_transfer_stats)
