"""Consumer groups whose workers, streams and server come and go: designed by seed, judged to the last entry."""
