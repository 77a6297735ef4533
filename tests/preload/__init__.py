"""System calls that fail, hang, are slow or short on one folder, and a wall clock that jumps, in a real process.

`faults.c` is the library, `build` compiles it, `control` says what happens. The tests' fixture is `fault_library`.
"""
