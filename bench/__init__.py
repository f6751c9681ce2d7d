"""Benchmarks of headrace: its kernels, its overhead, and the same work in other libraries."""
