"""`python -m billing [command]`; `--help` lists the commands."""

import sys
from collections.abc import Callable

from billing.commands import INBOX, RECONCILE, REPLAY
from billing.main import (
    declare_refund,
    declare_sync,
    ledger_check,
    migrate,
    refund,
    run,
    sync_customer,
)
from billing.settings import Settings
from easel_kit.lifecycle import Command, entry

if __name__ == "__main__":
    commands: dict[str, Callable[[Settings], None] | Command[Settings]] = {
        "migrate": migrate,
        "ledger-check": ledger_check,
        "refund": Command(refund, declare_refund),
        "sync": Command(sync_customer, declare_sync),
        "inbox": INBOX,
        "replay": REPLAY,
        "reconcile": RECONCILE,
    }
    sys.exit(entry("billing", Settings, run, commands))
