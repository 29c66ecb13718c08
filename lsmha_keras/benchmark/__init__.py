"""Benchmarks: each module measures something beside a named peer and writes a csv."""
