"""The tables of RESULTS.md."""

from __future__ import annotations

from measure.floors import BYTES_PER_RESULT
from measure.shapes import WHOLE

from . import bar
from .data import NOT_YET, few_queries, nbytes, rate, seconds, text


def table(head, rows) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def bar_table(results):
    return table(
        ("to be reached", "found", ""),
        [(row.wanted, row.found, row.verdict) for row in bar.rows(results)],
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
    found = results.records[-1]["ceilings"] if results.records else {}
    return table(("what the machine can do", ""), [
        (label, f"{found[name] / unit:.3g} {sign}" if found.get(name) else NOT_YET)
        for name, (label, unit, sign) in _CEILINGS.items()
    ])


def grid(results, nb, d, stock, ours):
    """Speed-up over stock Faiss; in brackets, our time over its floor."""
    def cell(n, k):
        case = {"n": n, "k": k, "nb": nb, "d": d}

        def form(found):
            ratio = results.ratio("grid", case, stock, ours)
            gap = found.entry["gap"]
            return (f"{ratio:.2f}x" if ratio else "-") + (
                f", {seconds(found.median)}"
                + (f" ({gap:.1f} floors)" if gap else "")
            )

        return text(results.get("grid", case, ours), form)

    return table(
        ("n", *(f"k = {k:,}" for k in WHOLE.neighbours)),
        [(f"{n:,}", *(cell(n, k) for k in WHOLE.neighbours))
         for n in WHOLE.queries],
    )


def grids(results, stock, ours):
    return "\n\n".join(
        f"nb = {nb:,}, d = {d}:\n\n{grid(results, nb, d, stock, ours)}"
        for nb, d in WHOLE.databases
    )


def copy_back(results):
    """Rates by destination and size."""
    contenders = ("stock", "plain", "ours")

    def cell(size, destination, contender):
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
        ("stock", "ours pooled", "ours pinned", "C++ stock", "C++ ours pinned",
         *_peers(results, "small_batches", [case for _, case in cases])),
    )


def calls(results, nb, d):
    return _times(
        results, "small_batches", "n",
        [(f"{n}", few_queries(n, nb, d, "call, GPU arrays"))
         for n in WHOLE.batches],
        ("ours GPU", "C++ ours GPU"),
    )


def on_gpu(results, nb, d):
    """All arrays on the GPU: stock Faiss, ours, peers."""
    cases = [
        (f"{n:,}, {k:,}", {"n": n, "k": k, "nb": nb, "d": d})
        for n in WHOLE.queries for k in WHOLE.neighbours
    ]
    return _times(
        results, "grid", "n, k", cases,
        ("stock GPU", "ours GPU",
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
        ("C++ stock, mutex", "C++ ours", "stock, mutex", "ours"), per_second,
    )


def cupy_script(results):
    cases = results.cases("cupy_script") or [
        dict(zip(("nb", "d", "n", "k"), WHOLE.cupy_script))
    ]
    return _times(
        results, "cupy_script", "arrays",
        [(case.get("arrays", "CuPy"), case) for case in cases],
        ("stock script", "ours script", "stock search", "ours search"),
    )


def large_results(results):
    nb, d = WHOLE.large_database
    return _times(
        results, "large_results", "n, k",
        [(f"{n:,}, {k:,}", {"n": n, "k": k, "nb": nb, "d": d})
         for n, k in WHOLE.large_cells],
        ("stock", "stock touched", "ours pooled", "ours fresh", "ours touched",
         "ours pinned", "ours GPU"),
        lambda found: seconds(found.median),
    )


def beyond_memory(results):
    cases = results.cases("beyond_memory") or [{}]
    return _times(
        results, "beyond_memory", "case",
        [(bar.cell(case) if case else "three times the free memory", case)
         for case in cases],
        ("ours touched", "ours pinned"),
    )


def constants(results):
    """The fastest setting of each sweep beside the one that is chosen."""
    rows = []
    for case in results.cases("constants"):
        if "destination" not in case:
            continue
        timed = {
            name: results.get("constants", case, name).median
            for name in results.contenders("constants", case)
        }
        if not timed:
            continue
        best = min(timed, key=timed.get)
        chosen = f"{case['setting']}={1 if case['setting'] == 'tiles' else 0}"
        rows.append((
            case["setting"], case["destination"], f"{case['n']:,}", best,
            f"{timed[chosen] / timed[best]:.2f}x" if chosen in timed else "-",
        ))
    return table(
        ("setting", "into", "n", "fastest", "time of the default over it"),
        rows or [(name, NOT_YET, NOT_YET, NOT_YET, NOT_YET) for name in
                 ("tileBytes", "pipelineDepth", "pinnedBytes", "copyThreads",
                  "copyChunkBytes", "mappedBytes", "tiles")],
    )


def _peers(results, bench, cases):
    """Peers that some record has."""
    found = {
        name for case in cases for name in results.contenders(bench, case)
        if name in ("torch", "CuPy", "cuVS")
    }
    return sorted(found)
