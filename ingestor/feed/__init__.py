"""The conversation with the vendor: messages and codes, the session brain, the socket, the waiting.

To add a vendor, write its messages, session and connection beside these; nothing outside this folder knows Alpaca.
"""
