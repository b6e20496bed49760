"""What `python -m faiss_ext profile` is made of.

`measure` times searches and gives a document of plain numbers; `table`, `trace`
and `picture` show one. Only `measure` needs a GPU.

The document, which `--json` writes::

    environment  versions, host, GPU, date
    link         bytes a second between pinned memory and the GPU, or None
    cases        a list of
        n, k, nb, d, metric, storage
        variants    a list of
            name        'stock', 'new', 'given', 'pooled' or 'device'
            seconds     of each search
        stock       seconds of Faiss' parts, by difference
        profiles    for 'given' and 'pooled', a list of recorded searches:
            seconds, clock_error, tiles, plan, caller, busy, moved
            compute_plan, paths, floor, peaks, and compute_stages, a list of
            name, spans, seconds, floor: of the exact engine (`SearchProfile`)
            spans, compute_spans: those of the median search, empty for the
            others
"""
