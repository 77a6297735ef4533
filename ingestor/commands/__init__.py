"""The subcommands of `quotebus`, one module each, imported only when called."""
