"""What daemon, command line and library know alike of the Redis that they talk to.

`url` reads an address, `tls` makes of its options what a handshake needs, `answers` puts a server's refusals into
words. None of them opens a socket: how bytes travel is each caller's own.
"""
