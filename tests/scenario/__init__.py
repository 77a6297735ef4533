"""Disasters and ordinary days, told with a real server, a real websocket and the real daemon process."""
