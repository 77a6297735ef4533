"""The server in memory beside a real one: the same operations from a seed, and what each answered.

`make twins` compares 500 seeds; the suite some. Where the two differ on purpose, `limits` says so with the reason.
"""
