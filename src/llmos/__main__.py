"""`python -m llmos`: the command line."""

import sys

from llmos.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
