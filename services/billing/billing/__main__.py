"""`python -m billing [serve | migrate | ledger-check]`."""

import sys

from billing.main import ledger_check, migrate, run
from billing.settings import Settings
from easel_kit.lifecycle import entry

if __name__ == "__main__":
    sys.exit(entry("billing", Settings, run, {"migrate": migrate, "ledger-check": ledger_check}))
