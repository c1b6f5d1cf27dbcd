"""`python -m gateway [serve|migrate|erase] [--config FILE] [--check-config]`."""

import sys

from easel_kit.lifecycle import entry
from gateway.commands import ERASE
from gateway.main import migrate, run
from gateway.settings import Settings

if __name__ == "__main__":
    sys.exit(entry("gateway", Settings, run, {"migrate": migrate, "erase": ERASE}))
