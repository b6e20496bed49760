"""What `python -m faiss_ext profile` shows of a document."""

from __future__ import annotations

import collections
import io
import json
import re

import numpy as np
import pytest
from matplotlib import image
from profile_documents import document

from faiss_ext.profiling.picture import draw
from faiss_ext.profiling.table import table
from faiss_ext.profiling.trace import middle, trace


def rows(text: str) -> dict[str, list[str]]:
    """The first case of a table: its labels, without repetition, and what
    stands beside them."""
    found: dict[str, list[str]] = {}
    for line in text.partition("n 1, k")[0].splitlines():
        match = re.match(r" *(\S.*?)   +(\S.*)$", line)
        if match:
            found.setdefault(match[1], match[2].split("  "))
    return {label: " ".join(cells).split() for label, cells in found.items()}


def test_the_table_has_median_p99_share_and_floor():
    of = rows(table(document()))
    assert of["faiss_ext, the same arrays"] == [
        "7.300", "ms", "8.015", "ms", "3.00x", "+-10.0%"
    ]
    assert of["wait for compute"] == ["5.550", "ms", "5.550", "ms", "76.0%"]
    # 20,000 results of 100 by 12 bytes at 50 GB/s.
    assert of["copy-back"] == [
        "3.000", "ms", "3.000", "ms", "41.1%", "0.480", "ms"
    ]
    assert of["upload"][-2:] == ["0.256", "ms"]
    # A stage that is not there has no line.
    assert "host copy" in of and "wait, nothing runs" not in of


def test_the_parts_of_stock_faiss_add_up_and_are_called_differences():
    of = rows(table(document()))
    parts = [
        of["queries, by difference"], of["compute (all arrays on the GPU)"],
        of["results, by difference"],
    ]
    assert sum(float(part[2].rstrip("%")) for part in parts) == pytest.approx(
        100, abs=0.2
    )
    assert sum(float(part[0]) for part in parts) == pytest.approx(21.9)


def test_the_table_tells_waiting_for_kernels_from_copying():
    text = table(document())
    assert (
        "A timer round the copies would call 87.0% of our search copy-back;\n"
        "76.0% is the wait for the kernels, 11.0% the copies."
    ) in text


def test_the_table_has_the_stages_of_the_exact_engine_below_compute():
    text = table(document())
    lines = text.splitlines()
    compute = next(
        i for i, line in enumerate(lines) if line.startswith("      compute "))
    assert lines[compute + 1].startswith("        filter 1 (75%) ")
    assert lines[compute + 2].startswith("        select 1 ")
    of = rows(text)
    assert of["filter 1 (75%)"] == [
        "3.600", "ms", "3.600", "ms", "49.3%", "2.700", "ms"
    ]
    # Of which no floor is known.
    assert of["select 1"] == ["1.800", "ms", "1.800", "ms", "24.7%"]


def test_the_table_tells_how_the_exact_engine_searched():
    text = table(document())
    assert "    by fused filters of 10000 vectors, and so on: words " in text
    assert "    queries: 19990 certified, 8 widened, 2 last path\n" in text
    told = " ".join(text.split())
    assert (
        "the GPU needs 2.400 ms for such a search at the least, 40.0% of its time "
        "in compute: 1071 Tflop/s by tensor cores, 3.35 TB/s"
    ) in told


def test_without_known_peaks_the_table_says_why():
    unknown = document()
    for case in unknown["cases"]:
        for profile in case["profiles"]["given"] + case["profiles"]["pooled"]:
            profile["floor"] = None
            profile["peaks"] = "not known for compute capability 8.0"
            for stage in profile["compute_stages"]:
                stage["floor"] = None
    text = table(unknown)
    assert "peaks of the GPU: not known for compute capability 8.0" in text
    assert "the GPU needs" not in text
    assert rows(text)["filter 1"] == ["3.600", "ms", "3.600", "ms", "49.3%"]


def test_of_other_kernels_the_table_tells_nothing_of_this():
    stock = document()
    for case in stock["cases"]:
        for profile in case["profiles"]["given"] + case["profiles"]["pooled"]:
            profile.update(compute_spans=[], compute_stages=[], compute_plan="",
                           paths=None, floor=None, peaks="")
    text = table(stock)
    for words in "queries:", "peaks", "filter", "the GPU needs":
        assert words not in text


def test_stages_of_a_few_searches_are_not_shown():
    # Such as those of the first search after a change.
    once = document()
    of_once = once["cases"][0]["profiles"]["given"]
    of_once[0] = {**of_once[0], "compute_stages": [
        {"name": "prepare index", "spans": 1, "seconds": 1e-3, "floor": None},
        *of_once[0]["compute_stages"]]}
    assert "prepare index" not in table(once)
    assert "filter 1" in table(once)


def test_the_table_fits_80_columns():
    assert max(map(len, table(document()).splitlines())) <= 81


def test_without_a_measured_link_there_is_no_floor():
    without = {**document(), "link": None}
    of = rows(table(without))
    assert of["copy-back"] == ["3.000", "ms", "3.000", "ms", "41.1%"]
    assert "not measured" in table(without)


def test_the_middle_search_is_one_that_happened():
    searches = [{"seconds": s} for s in (5, 1, 9, 2)]
    assert middle(searches) == {"seconds": 2}
    assert middle(searches[:1]) == {"seconds": 5}


def test_the_trace_has_every_span_on_the_thread_of_its_lane():
    made = json.loads(json.dumps(trace(document())))
    assert made["displayTimeUnit"] == "ns"
    names = collections.defaultdict(dict)
    for event in made["traceEvents"]:
        if event["ph"] == "M" and "name" in event["args"]:
            names[event["pid"]][event["name"], event["tid"]] = event["args"][
                "name"
            ]
    # Two cases, each with given and pooled results.
    assert sorted(names) == [1, 2, 3, 4]
    assert names[1]["process_name", 0] == (
        "faiss_ext, the same arrays: n 20000, k 100, nb 10000, d 128, l2, float32"
    )
    spans = document()["cases"][0]["profiles"]["given"][0]["spans"]
    events = [
        e for e in made["traceEvents"] if e["pid"] == 1 and e["ph"] == "X"
    ]
    assert len(spans) == 6 * 5 + 3 + 1
    inside = document()["cases"][0]["profiles"]["given"][0]["compute_spans"]
    assert len(events) == len(spans) + len(inside) == len(spans) + 6 * 2
    for event, span in zip(events[len(spans):], inside):
        assert event["cat"] == "compute stage"
        assert event["name"] == span["name"]
        assert names[1]["thread_name", event["tid"]] == "default stream"
        assert event["ts"] == pytest.approx(span["begin"] * 1e6)
        assert event["ts"] + event["dur"] == pytest.approx(span["end"] * 1e6)
    for event, span in zip(events, spans):
        assert event["cat"] == span["stage"]
        assert names[1]["thread_name", event["tid"]] == span["lane"]
        assert event["ts"] == pytest.approx(span["begin"] * 1e6)
        assert event["ts"] + event["dur"] == pytest.approx(span["end"] * 1e6)
        assert event["args"] == {"tile": span["tile"], "bytes": span["bytes"]}


def colours(made: bytes) -> collections.Counter[str]:
    """How many pixels have each colour."""
    pixels = (image.imread(io.BytesIO(made))[..., :3] * 255).round()
    values, counts = np.unique(
        pixels.reshape(-1, 3).astype(int), axis=0, return_counts=True
    )
    return collections.Counter(
        {
            "#" + "".join(f"{c:02x}" for c in value): int(count)
            for value, count in zip(values, counts)
        }
    )


COMPUTE, COPY_BACK, HOST_COPY = "#59a14f", "#e15759", "#f28e2b"


def drawn(of: dict) -> bytes:
    file = io.BytesIO()
    draw(of, "x.png", file)
    return file.getvalue()


def test_the_picture_shows_each_stage_in_its_colour():
    whole = document()
    found = colours(drawn(whole))
    for colour in (COMPUTE, COPY_BACK, HOST_COPY):
        assert found[colour] > 1000
    for case in whole["cases"]:
        case["stock"] = {"upload": 0, "compute": 1e-3, "copy-back": 0}
        for profile in case["profiles"]["given"] + case["profiles"]["pooled"]:
            profile["caller"]["wait for copy-back"] = 0
            profile["spans"] = [
                s for s in profile["spans"] if s["stage"] != "copy-back"
            ]
    # What is left of it is the legend.
    assert colours(drawn(whole))[COPY_BACK] < 0.05 * found[COPY_BACK]


@pytest.mark.parametrize(
    ("name", "begin"), [("x.svg", b"<?xml"), ("x.pdf", b"%PDF")]
)
def test_the_picture_has_the_format_of_its_name(name, begin):
    file = io.BytesIO()
    draw(document(), name, file)
    assert file.getvalue().startswith(begin)
