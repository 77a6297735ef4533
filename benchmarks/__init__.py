"""Measurements of speed, each beside its rivals in the same run: `python -m benchmarks --help`.

Decides what is compared and how. Must never be imported by anything else; it uses the daemon as an operator does,
as a process, except in `stages`, which opens the hot path to see where the time goes.
"""
