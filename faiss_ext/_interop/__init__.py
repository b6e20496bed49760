"""Arrays of any library: taken without a copy; results by the same library."""
