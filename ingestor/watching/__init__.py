"""What tells operators how the daemon fares: metrics, HTTP pages, status and events on Redis."""
