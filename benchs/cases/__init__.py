"""The benchmarks: each module has `run(session)`, which measures its cases."""
