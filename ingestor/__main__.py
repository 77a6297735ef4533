"""`python -m ingestor` is `quotebus run`."""

import sys

if __name__ == "__main__":
    sys.argv[1:1] = ["run"]

    from ingestor.entry import main

    main()
