"""Records (measure/record.py) into benchs/RESULTS.md: data, tables, the bar,
plots, words. Needs no GPU and no Faiss."""
