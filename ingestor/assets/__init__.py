"""Alpaca's list of assets: asked for once a day, kept on Redis, and what it says of the symbols wanted."""
