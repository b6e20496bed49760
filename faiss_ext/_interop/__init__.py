"""Arrays of any library: what they offer, taken without a copy; results for it."""
