"""Short random histories of a real daemon, each from a seed, each judged to the last entry: `make histories`."""
