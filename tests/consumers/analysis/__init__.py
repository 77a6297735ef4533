"""Frames: their columns, what stands in them, and that three libraries agree."""
