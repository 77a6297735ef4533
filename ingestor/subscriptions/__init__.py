"""Which symbols are wanted, which are confirmed, and what to ask for next."""
