"""`python -m samgan` is the command `samgan`."""

import sys

from samgan.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
