"""Where the time of one search went: numbers alone, no GPU."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import NamedTuple

__all__ = [
    "CALLER_PARTS", "PATHS", "STAGES", "ComputeSpan", "ComputeStage",
    "SearchProfile", "StageSpan",
]

#: What moves and computes, in the order of a tile's life.
STAGES = ("host read", "upload", "compute", "copy-back", "host copy")

#: How queries of the exact engine were answered (`SearchProfile.paths`).
PATHS = ("certified", "widened", "last path")

_CALLER = "calling thread"
_WAIT = "wait"
_WAIT_FOR_QUERIES = "wait for host read"

#: What a wait of the calling thread is for, where several run: behind kernels,
#: copies are hidden and cost the caller nothing.
_WAITED_FOR = {
    "compute": "wait for compute",
    "upload": "wait for upload",
    "copy-back": "wait for copy-back",
    "host copy": "wait for host copy",
    "host read": _WAIT_FOR_QUERIES,
}

#: The parts of `SearchProfile.caller`.
CALLER_PARTS = (
    "enqueue",
    "host read",
    "wait for host read",
    "wait for upload",
    "wait for compute",
    "wait for copy-back",
    "wait for host copy",
    "host copy",
    "wait, nothing runs",
)


class StageSpan(NamedTuple):
    """One stage of one tile.

    Attributes
    ----------
    stage : str
        'host read' (pageable queries into pinned memory), 'upload', 'compute',
        'copy-back', 'host copy' (results into the caller's arrays), or 'wait'
        of the calling thread: of a tile, for its queries, which the copy
        threads read ahead, and with its help.
    lane : str
        In whose order it stands: 'calling thread', 'copy threads' (queries
        read ahead), 'upload stream', 'default stream', 'copy stream', or
        'compute stream 1' to 'compute stream 8' for parts of a search that are
        computed side by side.
    tile : int
        0 to tiles - 1; -1 for what belongs to several.
    bytes : int
        What it moved; 0 for 'compute' and 'wait'.
    begin, end : float
        Seconds since the call began.

    Examples
    --------
    >>> span = faiss.StageSpan("upload", "upload stream", 0, 4096, 0.25, 0.75)
    >>> span.seconds
    0.5
    """

    stage: str
    lane: str
    tile: int
    bytes: int
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.end - self.begin


class ComputeSpan(NamedTuple):
    """One stage of what the exact engine computes for one tile, or a part of
    it; lies within a `StageSpan` of 'compute'.

    Attributes
    ----------
    name : str
        'normalise queries' (cosine), 'prepare index' (after a change of the
        vectors), 'copy vectors',
        'prepare queries', 'sample scores', 'first cut', 'filter 1', 'select 1',
        'filter 2' and so on, 'second filter', 'second select', 'last path',
        'write results'; where cuBLAS makes scores 'scores', 'filter' and
        'select', without numbers; of a scan 'scan cut', 'scan' or 'tensor
        scan', 'scan results'.
    lane : str
        As of `StageSpan`.
    tile : int
        0 to tiles - 1.
    begin, end : float
        Seconds since the call began; each begins where the former one ends.

    Examples
    --------
    >>> span = faiss.ComputeSpan("filter 1", "default stream", 0, 0.25, 0.75)
    >>> span.seconds
    0.5
    """

    name: str
    lane: str
    tile: int
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.end - self.begin


class ComputeStage(NamedTuple):
    """All `ComputeSpan` of one name in a search.

    Attributes
    ----------
    name : str
    spans : int
        How many.
    seconds : float
        Of all of them.
    floor : float or None
        Seconds that the GPU needs for it at the least: the longest of its
        operations over the tensor cores' peak, its float32 instructions over
        the other units', and its bytes over that of GPU memory. None: not
        known, for this stage or this GPU.

    Examples
    --------
    >>> faiss.ComputeStage("filter 1", 1, 0.5, 0.25).roofline
    0.5
    """

    name: str
    spans: int
    seconds: float
    floor: float | None

    @property
    def roofline(self) -> float | None:
        """The floor over the time, 1 at best; None: not known. (More than 1
        where what the GPU's cache holds already is read.)"""
        return _over(self.floor, self.seconds)


class SearchProfile:
    """Where the time of one search went, as `index.profile_search` found it.

    What the GPU does is timed by CUDA events, what the host does by its clock.

    Attributes
    ----------
    spans : list of StageSpan
        In the order in which they begin.
    seconds : float
        From the call to the moment when its outputs are complete.
    clock_error : float
        Seconds by which the clocks of the host and of the GPU may be apart.
    tiles : int
        Into how many tiles the search was cut.
    plan : str
        How it was done, in words: where it was computed, and in which parts.
    compute_spans : list of ComputeSpan
        The stages of the exact engine, in their order. This and all that
        follows is of its searches alone: empty, '' or None of others.
    compute_stages : list of ComputeStage
        Their times by name.
    compute_plan : str
        How it computed, in words: a line for each size of its tiles.
    paths : dict of str to int, or None
        Its queries by how their results are known to be right: 'certified',
        'widened' and 'last path', as in `transfer_stats`. None where they could
        not be counted.
    floor : float or None
        Seconds that the GPU needs for the search at the least, by the best way
        that there may be: all pairs of query and vector by tensor cores, or all
        arrays once through its memory, whichever takes longer. None: not known.
    peaks : str
        What the GPU does at most, of which floors are made; or why they are not
        known.

    Examples
    --------
    >>> spans = [faiss.StageSpan("upload", "upload stream", 0, 64, 0.1, 0.3),
    ...          faiss.StageSpan("compute", "default stream", 0, 0, 0.3, 0.8),
    ...          faiss.StageSpan("wait", "calling thread", -1, 0, 0.2, 1.0)]
    >>> faiss.SearchProfile(spans, 1.0, 1e-6, 1)
    SearchProfile(1e+03 ms, tiles: 1; upload 200 ms, compute 500 ms)
    """

    def __init__(
        self,
        spans: Iterable[StageSpan],
        seconds: float,
        clock_error: float,
        tiles: int,
        plan: str = "",
        *,
        compute_spans: Iterable[ComputeSpan] = (),
        compute_stages: Iterable[ComputeStage] = (),
        compute_plan: str = "",
        paths: dict[str, int] | None = None,
        floor: float | None = None,
        peaks: str = "",
    ) -> None:
        self.spans = list(spans)
        self.seconds = seconds
        self.clock_error = clock_error
        self.tiles = tiles
        self.plan = plan
        self.compute_spans = list(compute_spans)
        self.compute_stages = list(compute_stages)
        self.compute_plan = compute_plan
        self.paths = paths
        self.floor = floor
        self.peaks = peaks

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{name} {seconds * 1e3:.3g} ms"
            for name, seconds in self.busy().items()
            if seconds
        )
        whole = f"{self.seconds * 1e3:.3g} ms, tiles: {self.tiles}"
        return f"SearchProfile({'; '.join(filter(None, (whole, parts)))})"

    @property
    def roofline(self) -> float | None:
        """The floor over the time in 'compute'; more than 1 where the GPU's cache
        holds a small store; None: not known.

        Examples
        --------
        >>> span = faiss.StageSpan("compute", "default stream", 0, 0, 0.25, 0.75)
        >>> faiss.SearchProfile([span], 1.0, 0.0, 1, floor=0.125).roofline
        0.25
        """
        return _over(self.floor, self.busy()["compute"])

    def busy(self) -> dict[str, float]:
        """Seconds that each stage was under way, waiting not counted.

        Returns
        -------
        dict of str to float
            By stage, in the order of `STAGES`; what runs side by side counts
            once. Stages overlap, so these add up to more than `seconds` where
            copies are hidden behind kernels.

        Examples
        --------
        >>> span = faiss.StageSpan("upload", "upload stream", 0, 64, 0.25, 0.75)
        >>> faiss.SearchProfile([span], 1.0, 0.0, 1).busy()["upload"]
        0.5
        """
        sums = dict.fromkeys(STAGES, 0.0)
        until = dict.fromkeys(STAGES, float("-inf"))
        for span in self.spans:
            if span.stage != _WAIT and span.end > until[span.stage]:
                begin = max(span.begin, until[span.stage])
                sums[span.stage] += span.end - begin
                until[span.stage] = span.end
        return sums

    def moved(self) -> dict[str, int]:
        """Bytes that each stage moved.

        Returns
        -------
        dict of str to int
            By stage, in the order of `STAGES`.

        Examples
        --------
        >>> span = faiss.StageSpan("upload", "upload stream", 0, 64, 0.25, 0.75)
        >>> faiss.SearchProfile([span], 1.0, 0.0, 1).moved()["upload"]
        64
        """
        sums = dict.fromkeys(STAGES, 0)
        for span in self.spans:
            if span.stage != _WAIT:
                sums[span.stage] += span.bytes
        return sums

    def caller(self) -> dict[str, float]:
        """Where the calling thread spent the call; adds up to `seconds`.

        Each moment of its wait for the GPU is put down to what runs then: to
        'compute' if kernels run, else to the first of upload, copy-back and the
        host's copies that does. So copying hidden behind kernels counts as
        nothing, and waiting for kernels does not count as copying.

        Returns
        -------
        dict of str to float
            By part, in the order of `CALLER_PARTS`.

        Examples
        --------
        >>> spans = [faiss.StageSpan("compute", "default stream", 0, 0, 0.25, 0.75),
        ...          faiss.StageSpan("wait", "calling thread", -1, 0, 0.5, 1.0)]
        >>> parts = faiss.SearchProfile(spans, 1.0, 0.0, 1).caller()
        >>> {part: seconds for part, seconds in parts.items() if seconds}
        {'enqueue': 0.5, 'wait for compute': 0.25, 'wait, nothing runs': 0.25}
        """
        parts = dict.fromkeys(CALLER_PARTS, 0.0)
        running: collections.Counter[tuple[bool, str]] = collections.Counter()
        before = 0.0
        for moment, change, key in self._changes():
            if moment > before:
                parts[_part(running)] += moment - before
                before = moment
            running[key] += change
        return parts

    def _changes(self) -> list[tuple[float, int, tuple[bool, str]]]:
        """When something begins (1) or ends (-1), within the call."""
        changes = [(self.seconds, 0, (False, _WAIT))]
        for span in self.spans:
            stage = span.stage
            if stage == _WAIT and span.tile >= 0:
                stage = _WAIT_FOR_QUERIES
            key = (span.lane == _CALLER, stage)
            begin, end = (
                min(max(moment, 0.0), self.seconds)
                for moment in (span.begin, span.end)
            )
            changes += [(begin, 1, key), (end, -1, key)]
        return sorted(changes)


def _over(floor: float | None, seconds: float) -> float | None:
    return None if floor is None or seconds <= 0 else floor / seconds


def _part(running: collections.Counter[tuple[bool, str]]) -> str:
    """The part of the caller's time in which these run."""
    for stage in ("host read", "host copy", _WAIT_FOR_QUERIES):
        if running[True, stage] > 0:
            return stage
    if running[True, _WAIT] == 0:
        return "enqueue"
    for stage, part in _WAITED_FOR.items():
        if running[False, stage] > 0:
            return part
    return "wait, nothing runs"
