"""``python -m easel_local``: see `easel_local.cli`."""

import sys

from easel_local.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
