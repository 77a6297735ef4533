"""Reading the streams: where to begin, what to ask, what an answer proves, and the hand-over to the strategy.

Decides nothing itself: `start` says where, `gaps` and `pursuit` are the brains, `reader` is the shell. Must never
know what a strategy does with what it gets.
"""
