"""What every benchmark shares: the C++ part, memory, timing, the oracle, floors,
and the record that a run leaves."""
