"""Start the token issuer: ``python -m easel_local.issuer``."""

import sys

from easel_kit.lifecycle import entry
from easel_local.issuer.main import run
from easel_local.issuer.settings import IssuerSettings

if __name__ == "__main__":
    sys.exit(entry("easel_local.issuer", IssuerSettings, run))
