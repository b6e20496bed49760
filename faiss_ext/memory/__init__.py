"""Memory that callers see: pinned arrays, GPU memory from a pool of theirs."""
