"""Readers beside somebody who trims, deletes and renames their streams at random: what was missing, was it told?

`make losses` runs many histories; the suite runs a few. Each entry is numbered, and each that a reader never got
must lie in a gap that it was told.
"""
