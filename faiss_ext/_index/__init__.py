"""Faiss' classes and functions, for arrays of any library."""
