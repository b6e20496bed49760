"""benchs/RESULTS.md says what the records say, and nothing else."""

from __future__ import annotations

import json
import re

import made_up_records as made_up
import pytest

pytest.importorskip("matplotlib")

import report
from measure import record
from measure.floors import COMPUTE
from measure.shapes import WHOLE
from measure.timing import QUANTILES
from reporting import bar, engine, tables, words
from reporting.data import NOT_YET, Refused, Results


@pytest.fixture
def results(tmp_path):
    """`Results` of measurements, made up."""

    def make(*measurements, **more):
        folder = tmp_path / "records"
        number = len(list(folder.glob("*"))) if folder.exists() else 0
        record.write(
            made_up.record(list(measurements), **more), folder / f"{number}.json"
        )
        return Results(folder, made_up=True)

    return make


def written(results, folder):
    report.write(results, folder / "RESULTS.md")
    return (folder / "RESULTS.md").read_text(encoding="utf-8")


def test_without_records_every_cell_says_so(tmp_path):
    text = written(Results(tmp_path), tmp_path)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [cell.strip() for row in rows for cell in row.split("|")[1:-1]]
    assert cells.count(NOT_YET) > 500
    assert not re.search(r"\d(x\b| GB/s| ms| µs| s\b| queries)", " ".join(cells)
                         .replace("15 µs of Python", ""))
    assert not (tmp_path / "plots").exists() or not list(
        (tmp_path / "plots").iterdir())


@pytest.mark.parametrize("records, out", [
    ("results", "RESULTS.md"),
    ("results/faiss-1.7.3", "results/faiss-1.7.3/RESULTS.md"),
])
def test_the_reports_in_the_tree_are_of_the_records_in_the_tree(
    tmp_path, records, out
):
    expected = written(Results(made_up.BENCHS / records), tmp_path)
    assert (made_up.BENCHS / out).read_text("utf-8") == expected


def test_the_counts_of_the_filter_are_shown_as_they_were_recorded(tmp_path):
    title = "## How many vectors the exact search's filter lets pass"
    assert title not in written(Results(tmp_path), tmp_path)
    case = {"data": "made up", "ordinary": True, "nb": 5000, "d": 7, "metric": "L2",
            "capacity": 1024, "passed_mean": 1234.5, "list_mean": 12.25,
            "list_most": 2000, "window_mean": 10.5, "beyond_capacity": 0.015}
    (tmp_path / "filter").mkdir()
    for date, passed in (("2000-01-02", 1234.5), ("2000-01-01", 9.9)):
        cases = [case | {"k": k, "passed_mean": passed} for k in (1, 10)]
        (tmp_path / "filter" / f"{date}.json").write_text(json.dumps({
            "environment": made_up.environment(date=date), "queries": 3,
            "sample": 77, "cases": cases}))
    text = written(Results(tmp_path), tmp_path).partition(title)[2]
    cell = "1,234; 12.2, 2,000 (10.5); **1.5 %**"
    assert f"| made up, ordinary | 5,000 | 7 | L2 | {cell} | {cell} |" in text
    assert "3 queries" in text and "2000-01-02" in text and "9.9" not in text


def test_exactness_is_told_with_its_price(results):
    text = tables.exactness(results(*made_up.rest()))
    assert re.search(r"around 100 \| 10 \| stock \| 75\.0000% \| 2\.0e-02 \|", text)
    assert re.search(r"ours, exact \| 100\.0000% \| 1\.0e-07 \|.*\| 10\.00% \|", text)


def test_the_exact_engine_is_told_first_and_is_judged_by_its_bar(results, tmp_path):
    found = results(*made_up.engine(), *made_up.engine_worst())
    text = written(found, tmp_path)
    assert text.index("## ") == text.index("## The exact engine's speed")
    row = next(line for line in text.splitlines()
               if line.startswith("| 1,000,000 | 128 | 10,000 | "))
    assert "; aim 7 reached; FlashLib fp16 0.90x; stock 8." in row
    assert "**19.4 ms**; **beyond the bar 19**; FlashLib fp16" in row
    # By a search in a row, which takes half.
    case = {"n": 1, "k": 1, "nb": 10_000, "d": 128}
    (cell,) = (cell for cell in engine.cells(found) if cell.case == case)
    assert cell.verdict == "within the bar 0.031"
    assert cell.in_a_row == pytest.approx(cell.ours / 2, 0.05)
    assert "Of 84 measured cells 44 have a bar: 24 reach what was aimed at, " in text
    assert "In 21 cells somebody is faster than ours, in 21 of" in text
    assert "| n 32, k 1, nb 1,000,000, d 512 | FlashLib fp16 | 0.90 | 99.000% |" in text
    assert "| FlashLib | 0 | - | - | 84: time budget |" in text
    assert "| n 1, k 1, nb 1,000,000, d 128 | 3.0 MiB | 1 | 0 | 0 |" in text
    assert re.search(r"\| 1 % out of range \| 32 .* within \(1\.1\) \| 30 \| 1 \| 1 \|", text)
    assert re.search(r"\| all equal \| 32 .* \*\*beyond \(2\)\*\* ", text)
    assert re.search(r"\| sorted by cluster \| 32 .* within \(1\) ", text)
    assert re.search(r"n 10,000, k 10, nb 10,000, d 128 .* \*\*beyond \(3\)\*\* ", text)
    assert "(plots/engine.svg)" in text


def test_what_nobody_does_faster_and_what_was_not_measured_is_said(results):
    case = {"n": 500, "k": 10, "nb": 1_000_000, "d": 128}
    found = results(
        made_up.timed("engine", case, "ours, exact", 0.6e-3),
        made_up.timed("engine", case, "stock", 6e-3),
        {"bench": "engine", "case": {**case, "k": 100}, "skipped": "time budget: 9 s"},
        {"bench": "engine", "case": {**case, "k": 1000}, "contender": "ours, exact",
         "error": "WrongResult: off"})
    assert "Nobody is faster than ours" in engine.honest(found)
    row = next(line for line in engine.speed(found).splitlines()
               if line.startswith("| 1,000,000 | 128 | 500 | "))
    assert row == (f"| 1,000,000 | 128 | 500 | {NOT_YET} | **608 µs**; within the bar "
                   "0.75, aim 0.5; stock 9.95x | skipped: time budget | failed |")


def test_every_cell_of_the_bar_is_measured():
    cells = {(n, k, nb, d) for (nb, d), by_n in engine.BAR.items()
             for n, (accept, _) in by_n.items() for k in accept}
    assert cells == set(WHOLE.engine_bar_cells()) <= set(WHOLE.engine_cells())


def test_versions_of_faiss_are_not_mixed(results):
    results()
    other = made_up.environment(versions={"faiss": "9.8.7"})
    with pytest.raises(Refused, match="records of Faiss 0.0.0 and 9.8.7"):
        results(environment=other)


def test_the_readme_quotes_no_figure_that_is_not_in_the_report():
    readme = (made_up.BENCHS.parent / "README.md").read_text("utf-8")
    speed = readme.partition("\n## Speed\n")[2].partition("\n## ")[0]
    assert "benchs/RESULTS.md" in speed
    report_text = (made_up.BENCHS / "RESULTS.md").read_text("utf-8")
    for figure in re.findall(
        r"\d[\d.,]* ?(?:x|times|%|[GT]B/s|ns|µs|us|ms|s)\b", speed
    ):
        assert figure in report_text, figure


def test_a_whole_report_with_its_plots(results, tmp_path):
    found = results(*made_up.grid(), *made_up.small_batches(), *made_up.rest())
    text = written(found, tmp_path)
    assert "4.54x, 547 µs (1.01 of the least)" in text
    assert "72 of 72 cells" in text
    plots = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert plots == ["copy_back_share.svg", "latency.svg", "speed_up.svg"]
    for name in plots:
        assert f"(plots/{name})" in text
        assert "MADE UP" in (tmp_path / "plots" / name).read_text("utf-8")


@pytest.mark.parametrize("more", [
    {"made_up": False},
    {"smoke": True},
    {"environment": made_up.environment(simulated=True)},
])
def test_figures_that_mean_nothing_are_refused(results, more):
    with pytest.raises(Refused):
        results(**more)


def test_made_up_records_never_make_the_report(tmp_path, capsys):
    record.write(made_up.record([]), tmp_path / "a.json")
    assert report.main(["--records", str(tmp_path)]) == 2
    assert "made up" in capsys.readouterr().err


def test_the_newer_measurement_counts_and_a_skip_erases_none(results):
    case = {"n": 1, "k": 1, "nb": 10_000, "d": 128}
    old = made_up.environment(date="1999-01-01 00:00 UTC")
    results(made_up.timed("grid", case, "stock", 2.0))
    results(made_up.timed("grid", case, "stock", 5.0), environment=old)
    new = made_up.environment(date="2001-01-01 00:00 UTC")
    found = results({"bench": "grid", "case": case, "skipped": "time"},
                    environment=new)
    assert 2 <= found.get("grid", case, "stock").median < 2.1


def test_skipped_and_failed_cells_say_so(results, tmp_path):
    skipped = {"n": 1_000_000, "k": 1000, "nb": 1_000_000, "d": 512}
    failed = {"n": 1, "k": 1, "nb": 10_000, "d": 128}
    found = results(
        {"bench": "grid", "case": skipped, "skipped": "host memory: 9 GiB"},
        {"bench": "grid", "case": failed, "contender": "ours pooled",
         "error": "WrongResult: off"},
    )
    text = written(found, tmp_path)
    assert "skipped: host memory" in text
    assert "Skipped (n 1,000,000, k 1,000, nb 1,000,000, d 512): host memory: 9 GiB" in text
    assert "| failed |" in text
    assert "Failed: grid" in text


def _grid_with(case, **medians):
    for entry in made_up.grid():
        if entry["case"] == case and entry["contender"] in medians:
            yield made_up.timed("grid", case, entry["contender"],
                                medians[entry["contender"]], entry["floors_s"])
        else:
            yield entry


def test_the_bar_is_reached_where_it_is(results):
    found = results(*made_up.grid(), *made_up.small_batches(), *made_up.rest())
    verdicts = [row.verdict for row in bar.rows(found)]
    # The last one is a little under.
    assert verdicts == ["reached"] * 8 + ["**missed**"]


SMALL = {"n": 1, "k": 100, "nb": 1_000_000, "d": 128}


@pytest.mark.parametrize(("row", "measurements"), [
    (0, lambda: _grid_with(
        {"n": 10_000, "k": 100, "nb": 1_000_000, "d": 128},
        **{"ours GPU queries, pinned": 0.06})),
    (1, lambda: _grid_with(
        {"n": 100_000, "k": 1000, "nb": 10_000, "d": 128},
        **{"ours GPU queries, pinned": 0.05})),
    (2, lambda: _grid_with(
        {"n": 32, "k": 10, "nb": 1_000_000, "d": 512}, **{"ours touched": 1.0})),
    (3, lambda: _grid_with(
        {"n": 10_000, "k": 100, "nb": 10_000, "d": 128}, **{"ours pooled": 0.01})),
    (4, lambda: _grid_with(
        {"n": 100_000, "k": 1000, "nb": 1_000_000, "d": 128},
        **{"ours pooled": 0.6})),
    (5, lambda: [
        made_up.timed("small_batches", {**SMALL, "timed": "latency"}, name, median)
        for name, median in (("stock", 1e-4), ("ours pooled", 9e-5))]),
    (6, lambda: [
        made_up.timed("small_batches", {**SMALL, "timed": "call, GPU arrays"},
                      name, 1e-5, None, {"host_waits": 1})
        for name in ("ours, CuPy, given outputs", "ours GPU, pointers")]),
    (7, lambda: [
        made_up.timed("threads", {"threads": 16, "calls": 20, "nb": 10_000}, name,
                      median)
        for name, median in (("C++ stock, mutex", 3.0), ("C++ ours", 1.0))]),
    (8, lambda: [
        made_up.timed("beyond_memory", {"n": 10**6, "k": 1000, "nb": 1, "d": 1},
                      "ours pinned", 1.0)]),
])
def test_the_bar_is_missed_where_it_is(results, row, measurements):
    assert bar.rows(results(*measurements()))[row].verdict == "**missed**"


@pytest.mark.parametrize(("compute", "verdict"), [
    (0.5, "**missed**"), (0.95, "**missed**, out of reach of any copying")])
def test_a_row_that_is_missed_says_what_the_computation_alone_takes(
    results, compute, verdict
):
    case = {**SMALL, "timed": "latency"}
    found = results(*(
        made_up.timed("small_batches", case, name, median)
        for name, median in (("stock", 1.0), ("ours pooled", 1.0),
                             (COMPUTE, compute))))
    row = bar.rows(found)[5]
    assert row.verdict == verdict
    assert re.search(
        r"of stock Faiss\. With nothing to copy at all it would be 0\.", row.told)


def test_a_part_of_the_grid_reaches_no_more_than_that_part(results):
    cells = [entry for entry in made_up.grid() if entry["case"]["n"] == 10_000]
    verdicts = [row.verdict for row in bar.rows(results(*cells))]
    assert verdicts[:5] == ["reached where measured"] * 5


def test_a_ratio_is_of_one_run(results):
    case = {"n": 500, "k": 10, "nb": 10_000, "d": 128}

    def timed(**medians):
        return [made_up.timed("grid", case, name.replace("_", " "), median)
                for name, median in medians.items()]

    assert results(*timed(stock=2.0)).ratio(
        "grid", case, "stock", "ours pooled") is None
    assert results(*timed(ours_pooled=1.0)).ratio(
        "grid", case, "stock", "ours pooled") is None
    results(*timed(stock=8.0, ours_pooled=2.0, ours_GPU=1.0))
    results(*timed(ours_pooled=0.5))
    found = results(*timed(stock=3.0))
    assert "4.01x, 2.02 s" in tables.grid(found, 10_000, 128, "stock", "ours pooled")
    assert found.ratio("grid", case, "stock", "ours pooled") == pytest.approx(4, 0.05)
    assert found.over_compute(
        "grid", case, "stock", "ours pooled") == pytest.approx(8, 0.05)
    assert found.over_compute("grid", case, "stock", "ours fresh") is None
    found = results(*timed(stock=9.0, ours_pooled=2.0))
    assert found.over_compute("grid", case, "stock", "ours pooled") is None


def test_python_on_top_of_a_call_is_of_one_run(results):
    shape = {"n": 1, "k": WHOLE.small_k, "timed": "call, GPU arrays"}

    def run(arrays, pointers, nb=10_000):
        given = {"bytes_to_host": 0, "bytes_to_device": 0, "host_waits": 0}
        case = {**shape, "nb": nb, "d": 128}
        return results(*(
            made_up.timed("small_batches", case, name, median, None, given)
            for name, median in (("ours, CuPy, given outputs", arrays),
                                 ("ours GPU, pointers", pointers)) if median))

    def row(found):
        return next(row for row in bar.rows(found) if "CuPy arrays" in row.wanted)

    run(60e-6, 50e-6)
    # On a slower host, and without the other.
    assert row(run(160e-6, None)).found.startswith("10.")


def test_pinned_results_are_judged_as_measured_and_the_error_is_told(results):
    case = {"n": 10_000, "k": 10, "nb": 10_000, "d": 128}

    def verdict(pinned, spread):
        entries = [
            made_up.timed("grid", case, name, median)
            for name, median in (
                ("ours GPU", 1.0), ("ours GPU queries, pinned", pinned))
        ]
        for entry in entries:
            # Of the quartiles about the median.
            entry["runs"] = 50
            entry["quantiles_s"] = sorted(
                entry["median_s"] + spread * (share - 0.5) for share in QUANTILES)
        found = results(*entries)
        assert found.ratio_error(
            "grid", case, "ours GPU queries, pinned", "ours GPU"
        ) == pytest.approx(2 * 2**0.5 * 0.1313 * spread / 2, 0.1)
        row = bar.rows(found)[0]
        return row.passed, row.found.partition("; ")[2][:20]

    assert verdict(1.01, 0.001) == (True, "")
    assert verdict(1.04, 0.001) == (False, "1 above 2 %, 1 of th")
    assert verdict(1.04, 0.2) == (False, "1 above 2 %, 0 of th")


def test_a_cell_timed_once_has_the_noise_of_its_database(results):
    case = {"n": 100_000, "k": 1, "nb": 1_000_000, "d": 128}
    other = {**case, "k": 10}
    found = results(*(
        made_up.timed("grid", where, name, median)
        for where, name, median in (
            (case, "stock", 1.0), (other, "stock", 1.0), (other, "stock again", 1.2))))
    assert bar.noise_of(found, case) == bar.noise_of(found, other) > 0.15
    assert bar.noise_of(found, {**case, "d": 512}) == bar.LEAST_NOISE


def test_words_name_what_gains_nothing_and_what_loses(results):
    case = {"n": 500, "k": 10, "nb": 10_000, "d": 128}
    text = words.where_it_does_not_help(
        results(*_grid_with(case, **{"ours pooled": 1.0})))
    assert "Of 72 measured cells" in text and "1 are slower" in text
    assert "Slower at (n 500, k 10, nb 10,000, d 128) 0.00x" in text
    assert "Nothing is gained at" in text
