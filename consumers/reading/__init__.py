"""Reading the streams: where to begin, what to ask, what an answer proves, and the hand-over to the strategy.

Decides nothing itself: `start`, `gaps`, `pursuit`, `entry`, `freshness` and `conflation` are the brains,
`source` is the shell that asks, `reader`, `quotes` and `newest` hand over. Must never know what a strategy does
with what it gets.
"""
