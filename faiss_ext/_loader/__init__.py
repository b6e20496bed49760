"""Which Faiss there is, which native part, and why not."""
