"""The programs under `examples/`, run as a newcomer would run them."""
