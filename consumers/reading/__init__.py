"""Reading the streams: where to begin, what to ask, what an answer proves, and the hand-over to the strategy.

Decides nothing itself: `start`, `gaps`, `pursuit` and `entry` are the brains, `source` asks, `reader` and `quotes`
hand over. Must never know what a strategy does with what it gets.
"""
