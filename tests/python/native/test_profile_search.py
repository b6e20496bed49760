"""A search and where its time went, from Python."""

import numpy as np
import pytest

D = 16
K = 5


@pytest.fixture
def index(faiss_ext):
    config = faiss_ext.StagedConfig()
    config.tune("tileRows", 30)
    config.tune("mappedBytes", 1)  # few results, but copied
    index = faiss_ext.GpuIndexFlatL2(
        faiss_ext.StandardGpuResources(), D, faiss_ext.GpuIndexFlatConfig(), config
    )
    index.add(vectors(200))
    return index


def vectors(n):
    return np.random.default_rng(n).integers(-7, 8, (n, D)).astype("float32")


def test_gives_the_results_of_a_search(index):
    x = vectors(90)
    distances, labels, _ = index.profile_search(x, K)
    found = index.search(x, K)
    np.testing.assert_array_equal(distances, found[0])
    np.testing.assert_array_equal(labels, found[1])


def test_writes_given_arrays(index):
    x = vectors(90)
    d, i = np.full((90, K), -9, "float32"), np.full((90, K), -9, "int64")
    distances, labels, _ = index.profile_search(x, K, D=d, I=i)
    assert distances is d and labels is i
    np.testing.assert_array_equal(i, index.search(x, K)[1])


def test_tells_the_stages_of_each_tile(index, faiss_ext):
    given = np.empty((90, K), "float32"), np.empty((90, K), "int64")
    *_, profile = index.profile_search(vectors(90), K, D=given[0], I=given[1])
    assert isinstance(profile, faiss_ext.SearchProfile)
    assert profile.tiles == 3
    for stage, tiles in {
        "host read": [0, 1, 2],
        "upload": [0, 1, 2],
        "compute": [0, 1, 2],
        "copy-back": [0, 1, 2],
        # So few results are copied together.
        "host copy": [-1],
    }.items():
        spans = [span for span in profile.spans if span.stage == stage]
        assert [span.tile for span in spans] == tiles
        assert all(span.seconds >= 0 for span in spans)
    assert profile.moved() == {
        "host read": 90 * D * 4,
        "upload": 90 * D * 4,
        "compute": 0,
        "copy-back": 90 * K * 12,
        "host copy": 90 * K * 12,
    }
    assert sum(profile.caller().values()) == pytest.approx(profile.seconds)
    assert "tiles: 3" in repr(profile)


def test_results_on_pooled_pinned_memory_go_the_way_of_a_search(index):
    *_, profile = index.profile_search(vectors(90), K)
    assert profile.tiles == 3
    assert profile.moved()["copy-back"] == 90 * K * 12
    assert profile.moved()["host copy"] == 0
    counts = []
    for search in index.search, index.profile_search:
        index.reset_transfer_stats()
        search(vectors(20), K)
        counts.append(index.transfer_stats()["copies_to_host"])
    assert counts == [2, 2]


def test_of_gpu_arrays_moves_nothing(index, gpu_array):
    x = vectors(90)
    distances, labels, profile = index.profile_search(gpu_array(x), K)
    assert {stage: n for stage, n in profile.moved().items() if n} == {}
    assert profile.busy()["compute"] > 0
    np.testing.assert_array_equal(labels.copy_to_host(), index.search(x, K)[1])


def exact(faiss_ext, way=0):
    config = faiss_ext.StagedConfig()
    config.search = "exact"
    config.tune("exactWay", way)
    index = faiss_ext.GpuIndexFlatL2(
        faiss_ext.StandardGpuResources(), D, faiss_ext.GpuIndexFlatConfig(), config
    )
    index.add(vectors(200))
    return index


def test_of_the_exact_engine_tells_its_stages(faiss_ext):
    index = exact(faiss_ext, way=3)  # fused filters
    *_, profile = index.profile_search(vectors(90), K)
    names = [stage.name for stage in profile.compute_stages]
    assert names[:3] == ["prepare index", "copy vectors", "prepare queries"]
    assert names[-2:] == ["last path", "write results"]
    assert profile.compute_spans[0].name == "prepare index"
    (compute,) = [s for s in profile.spans if s.stage == "compute"]
    end = compute.begin
    for span in profile.compute_spans:
        assert isinstance(span, faiss_ext.ComputeSpan)
        assert (span.lane, span.tile) == ("default stream", 0)
        assert span.begin == pytest.approx(end)
        end = span.end
    assert end <= compute.end
    assert sum(s.seconds for s in profile.compute_stages) == pytest.approx(
        sum(s.seconds for s in profile.compute_spans))
    assert profile.compute_plan.startswith("90 queries in 1 tile, by fused filters")
    assert sum(profile.paths.values()) == 90
    floors = {stage.name: stage.floor for stage in profile.compute_stages}
    assert floors["first cut"] is None and floors["copy vectors"] > 0
    assert profile.floor > 0 and "Tflop/s" in profile.peaks
    assert profile.roofline == pytest.approx(
        profile.floor / profile.busy()["compute"])


def test_of_kernels_of_faiss_tells_nothing_of_the_exact_engine(faiss_ext):
    config = faiss_ext.StagedConfig()
    config.search = "faiss"
    index = faiss_ext.GpuIndexFlatL2(
        faiss_ext.StandardGpuResources(), D, faiss_ext.GpuIndexFlatConfig(), config
    )
    index.add(vectors(200))
    *_, profile = index.profile_search(vectors(90), K)
    assert profile.compute_spans == profile.compute_stages == []
    assert profile.compute_plan == profile.peaks == ""
    assert profile.paths is profile.floor is profile.roofline is None


def test_refuses_what_a_search_refuses(index, faiss_ext):
    with pytest.raises(faiss_ext.InvalidArray, match="x: shape"):
        index.profile_search(np.zeros((3, D + 1), "float32"), K)
    with pytest.raises(ValueError, match="k: 0"):
        index.profile_search(vectors(3), 0)
