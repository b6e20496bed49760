"""One call on a GPU: its arrays, its place among the streams, what it keeps."""
