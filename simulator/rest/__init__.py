"""Alpaca's REST calls, answered by the double: quotes, bars, clock, calendar, assets.

Decides what a call is answered, how many are allowed, and what goes wrong with it. Must never know the websocket's
conversations; what was quoted there is handed to it.
"""
