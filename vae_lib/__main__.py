"""``python -m vae_lib``: the command line."""

import sys

from vae_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
