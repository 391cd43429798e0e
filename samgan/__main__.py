"""`python -m samgan` is the command `samgan`."""

import sys

from samgan.cli import main

if __name__ == "__main__":
    sys.exit(main())
