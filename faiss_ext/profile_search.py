"""The method `profile_search` of our index classes."""

from __future__ import annotations

from typing import Any

from .index_methods import call_on, count, labels_fit_int32
from .pinned import empty_results
from .search_profile import SearchProfile, StageSpan


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
        does by its clock.

    Raises
    ------
    InvalidArray, RuntimeError
        As `search`.

    Notes
    -----
    Returns when the outputs are complete, wherever they lie. Waits for the
    GPU a few times more than `search`, to compare the clocks, and records two
    events for each stage of a tile; so it takes a little longer. Earlier work
    on the index's stream is waited for first and not counted. What Python does
    before and after is not in the profile.
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
    )
