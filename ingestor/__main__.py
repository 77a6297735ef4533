"""`python -m ingestor` is `quotebus run`."""

import sys

from ingestor.entry import main

if __name__ == "__main__":
    sys.argv[1:1] = ["run"]
    main()
