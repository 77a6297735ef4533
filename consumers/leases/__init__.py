"""Leases: how a strategy makes a symbol desired for as long as it lives, and no longer.

`book` decides what is written when, `keeper` writes it, `lease` and `interest` are held. Nothing here reads quotes.
"""
