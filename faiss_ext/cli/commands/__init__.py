"""The commands of `python -m faiss_ext`, one module each.

A command is a module with a docstring, `add_arguments(parser)` and
`run(args)`, which returns the exit status. They live in a folder of their own
because a module `faiss_ext.knn` would hide Faiss' function of that name.
"""
