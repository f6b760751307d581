"""Benches: ours beside the reference, agreement first (see README.md)."""
