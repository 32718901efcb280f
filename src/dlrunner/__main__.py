"""`python -m dlrunner` is `dlrun`."""

import sys

from dlrunner.cli import main

if __name__ == "__main__":
    sys.exit(main())
