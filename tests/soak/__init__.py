"""Hours of ordinary traffic with random faults, and figures of single ones: `python -m tests.soak`."""
