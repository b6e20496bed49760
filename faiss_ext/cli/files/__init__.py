"""Files of vectors and of results."""
