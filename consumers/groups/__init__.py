"""Sharing the work on some symbols among several processes, by consumer groups.

Decides nothing itself: `delivery` says what a worker gets, `membership`, `looks`, `standing`, `rounds`, `book` and
`lag` decide, `share` asks, `worker` hands over. Must never make a stream: the daemon takes a stream that is not
there for one that vanished, and marks its loss, which a stream made here would hide (`append.lua`).
"""
