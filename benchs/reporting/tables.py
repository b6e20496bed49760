"""The tables of RESULTS.md."""

from __future__ import annotations

from measure.floors import BYTES_PER_RESULT, COMPUTE
from measure.shapes import WHOLE

from . import bar
from .data import NOT_YET, few_queries, nbytes, rate, seconds, text
from .markdown import table


def bar_table(results):
    return table(
        ("to be reached", "found", ""),
        [(row.wanted, row.told, row.verdict) for row in bar.rows(results)],
    )


def machines(results):
    """What was measured where."""
    if not results.records:
        fields = ("date", "GPU", "driver", "CUDA", "Faiss", "commit", "host")
        return table(fields, [(NOT_YET,) * len(fields)])
    rows = []
    for content in results.records:
        found = content["environment"]
        rows.append((
            found["date"], found["gpu"].get("name", "unknown"),
            found["gpu"].get("driver_version", "unknown"),
            found["cuda"].get("runtime", "unknown"),
            found["versions"].get("faiss") or "unknown", found["commit"],
            f"{found['host'].get('processor')}, {found['host'].get('cores')} cores",
        ))
    return table(("date", "GPU", "driver", "CUDA", "Faiss", "commit", "host"), rows)


_CEILINGS = {
    "link_to_host_bytes_s": ("link, GPU to pinned memory", 1e9, "GB/s"),
    "link_to_device_bytes_s": ("link, pinned memory to GPU", 1e9, "GB/s"),
    "device_memory_bytes_s": ("GPU memory, read and written", 1e9, "GB/s"),
    "gemm_flops": ("cuBLAS, float32", 1e12, "Tflop/s"),
    "host_copy_bytes_s": ("host copy, one thread", 1e9, "GB/s"),
    "page_fault_s": ("a page of fresh memory", 1e-6, "µs"),
    "copy_call_s": ("copy of 4 bytes with its wait", 1e-6, "µs"),
    "host_function_s": ("a host function on a stream", 1e-6, "µs"),
    "event_s": ("an event record", 1e-6, "µs"),
}


def ceilings(results):
    """Of the newest record."""
    found = {}
    for record in results.records:
        # One that was not measured leaves the one before.
        found.update((name, value) for name, value in record["ceilings"].items()
                     if value is not None)
    return table(("what the machine can do", ""), [
        (label, f"{found[name] / unit:.3g} {sign}" if found.get(name) else NOT_YET)
        for name, (label, unit, sign) in _CEILINGS.items()
    ])


def grid(results, nb, d, stock, ours):
    """Speed-up over stock Faiss; in brackets, our time over the least it could
    be: the measured computation or the link, or the floor where the computation
    was not measured."""
    def cell(n, k):
        case = {"n": n, "k": k, "nb": nb, "d": d}

        both = results.pair("grid", case, stock, ours)
        ratio = f"{both[0].median / both[1].median:.2f}x" if both else "-"
        return text(
            both[1] if both else results.get("grid", case, ours),
            lambda found: f"{ratio}, {seconds(found.median)}{_over_the_least(found)}")

    return table(
        ("n", *(f"k = {k:,}" for k in WHOLE.neighbours)),
        [(f"{n:,}", *(cell(n, k) for k in WHOLE.neighbours))
         for n in WHOLE.queries],
    )


def _over_the_least(found):
    entry = found.entry
    if entry.get("measured_gap"):
        return f" ({entry['measured_gap']:.2f} of the least)"
    return f" ({entry['gap']:.1f} floors)" if entry["gap"] else ""


def grids(results, stock, ours):
    return "\n\n".join(
        f"nb = {nb:,}, d = {d}:\n\n{grid(results, nb, d, stock, ours)}"
        for nb, d in WHOLE.databases
    )


def copy_back(results):
    """Rates by destination and size."""
    contenders = ("stock", "plain", "ours", "kernel stores")

    def cell(size, destination, contender):
        if contender == "kernel stores" and destination != "pinned":
            return "-"
        moved = max(size // BYTES_PER_RESULT * BYTES_PER_RESULT, 4)
        return text(
            results.get("copy_back", {"bytes": size, "destination": destination},
                        contender),
            lambda found: f"{rate(found, moved) / 1e9:.3g}"
            if size >= 1 << 20 else seconds(found.median),
        )

    return table(
        ("to", "size", *contenders),
        [
            (destination, nbytes(size),
             *(cell(size, destination, name) for name in contenders))
            for destination in WHOLE.destinations for size in WHOLE.sizes
        ],
    )


def _times(results, bench, head, cases, contenders, form=None):
    form = form or (
        lambda found: f"{seconds(found.median)} (p99 {seconds(found.entry['p99_s'])})"
    )
    return table(
        (head, *contenders),
        [
            (label, *(text(results.get(bench, case, name), form)
                      for name in contenders))
            for label, case in cases
        ],
    )


def small_batches(results, nb, d):
    cases = [
        (f"{n}", few_queries(n, nb, d, "latency")) for n in WHOLE.batches
    ]
    return _times(
        results, "small_batches", "n", cases,
        ("stock", "ours pooled", "ours pinned", "C++ stock", "C++ ours",
         "C++ ours pinned", COMPUTE, "C++ ours GPU",
         *_peers(results, "small_batches", [case for _, case in cases])),
    )


def calls(results, nb, d):
    cases = [
        (f"{n}", few_queries(n, nb, d, "call, GPU arrays")) for n in WHOLE.batches
    ]
    found = {
        name for _, case in cases
        for name in results.contenders("small_batches", case)
    }
    names = [
        name for library in bar.GPU_LIBRARIES
        for name in (f"ours, {library}", f"ours, {library}, given outputs")
    ]
    return _times(
        results, "small_batches", "n", cases,
        ("C++ ours GPU", "C++ stock GPU, call", "ours GPU, pointers",
         *([name for name in names if name in found] or names[:1])),
    )


def on_gpu(results, nb, d):
    """All arrays on the GPU: stock Faiss, ours, peers."""
    cases = [
        (f"{n:,}, {k:,}", {"n": n, "k": k, "nb": nb, "d": d})
        for n in WHOLE.queries for k in WHOLE.neighbours
    ]
    return _times(
        results, "grid", "n, k", cases,
        (COMPUTE, "C++ ours GPU", "stock GPU", "ours GPU",
         *_peers(results, "grid", [case for _, case in cases])),
        lambda found: seconds(found.median),
    )


def threads(results):
    cases = results.cases("threads") or [
        {"nb": nb, "d": d} for nb, d in WHOLE.small_databases
    ]

    def per_second(found):
        case = found.entry["case"]
        return f"{case['threads'] * case['calls'] / found.median:,.0f} queries/s"

    return _times(
        results, "threads", "database",
        [(f"nb = {case['nb']:,}, d = {case['d']}", case) for case in cases],
        ("C++ stock, mutex", "C++ ours", COMPUTE, f"{COMPUTE}, one by one",
         "stock, mutex", "ours", "ours, no batches"),
        per_second,
    )


def cupy_script(results):
    cases = results.cases("cupy_script") or [
        dict(zip(("nb", "d", "n", "k"), WHOLE.cupy_script))
    ]
    return _times(
        results, "cupy_script", "arrays",
        [(case.get("arrays", "CuPy"), case) for case in cases],
        ("stock script", "ours script", "stock search", "ours search", COMPUTE),
    )


def large_results(results):
    nb, d = WHOLE.large_database
    return _times(
        results, "large_results", "n, k",
        [(f"{n:,}, {k:,}", {"n": n, "k": k, "nb": nb, "d": d})
         for n, k in WHOLE.large_cells],
        ("stock", "stock touched", "ours pooled", "ours fresh", "ours touched",
         "ours pinned", "ours GPU", COMPUTE),
        lambda found: seconds(found.median) + _over_the_least(found),
    )


def beyond_memory(results):
    cases = results.cases("beyond_memory") or [{}]
    return _times(
        results, "beyond_memory", "case",
        [(bar.cell(case) if case else "three times the free memory", case)
         for case in cases],
        ("ours touched", "ours pinned", "ours GPU", COMPUTE),
        lambda found: seconds(found.median) + _over_the_least(found),
    )


_EXACTNESS = """{n:,} queries among {nb:,} vectors of each kind (benchs/measure/datasets.py), all
arrays on the GPU. A label is right if its distance in float64, of differences, is not above the k-th one; an error of a distance is a part of
that k-th one, the largest of all. The exact engine finds the least D, a formula in float32 (docs/exact-search.md): where vectors differ by less than its
rounding, the near duplicates at k 100, D may have another order than float64.

"""


def exactness(results):
    """By data set: right labels, the largest error of a distance, times."""
    rows = []
    cases = results.cases("exactness")
    for case in cases:
        for name in results.contenders("exactness", case):
            found = results.get("exactness", case, name)
            counts = found.entry["counts"]
            queries = sum(counts.get(f"{path}_queries", 0)
                          for path in ("certified", "widened", "last_path"))
            rows.append((
                case["data"], f"{case['k']:,}", name,
                f"{counts['label_agreement']:.4%}",
                f"{counts['largest_distance_error']:.1e}", seconds(found.median),
                f"{counts['last_path_queries'] / queries:.2%}" if queries else "",
            ))
    return (_EXACTNESS.format(**cases[0]) if cases else "") + table(
        ("data", "k", "", "labels that are right", "largest error of a distance",
         "time", "queries compared with every vector"),
        rows or [(NOT_YET,) * 7],
    )


def constants(results):
    """Each sweep: the fastest setting, and all of them over the default."""
    rows = []
    for case in results.cases("constants"):
        timed = {
            name.partition("=")[2]: results.get("constants", case, name).median
            for name in results.contenders("constants", case)
        }
        shape = tuple(
            f"{case[name]:,}" if name in case else "" for name in ("n", "k", "nb"))
        head = case["setting"], case["destination"], *shape
        default = timed.get("1" if case["setting"] == "tiles" else "0")
        if not default:
            rows.append(
                (*head, text(results.get("constants", case, None), str), "-"))
            continue
        rows.append((
            *head, _setting(min(timed, key=timed.get), case["setting"]),
            ", ".join(f"{_setting(name, case['setting'])}: {time / default:.2f}"
                      for name, time in timed.items()),
        ))
    skipped = results.get("constants", {}, None)
    return table(
        ("setting", "into", "n", "k", "nb", "fastest", "time over the default's"),
        rows or [(name, *["-"] * 4, text(skipped, str), "-") for name in
                 ("tileBytes", "pipelineDepth", "pinnedBytes", "copyThreads",
                  "copyChunkBytes", "mappedBytes", "tile rows", "tiles")],
    )


def _setting(value, setting):
    """A value of a sweep as people say it."""
    if setting in ("tiles", "tile rows") or value == "0":
        return "default" if value == "0" else value
    return nbytes(int(value)) if setting.endswith("Bytes") else value


def _peers(results, bench, cases):
    """Peers that some record has."""
    found = {
        name for case in cases for name in results.contenders(bench, case)
        if name in ("torch", "CuPy", "cuVS")
    }
    return sorted(found)
