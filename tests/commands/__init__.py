"""The command line as a user meets it: real processes, exit codes, and what stands on the screen."""
