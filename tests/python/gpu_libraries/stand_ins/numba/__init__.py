"""As much of Numba as the tests use."""
