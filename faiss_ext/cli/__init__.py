"""The command line, `python -m faiss_ext` and `faiss-ext`."""
