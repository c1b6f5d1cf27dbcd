"""Start the stand-in of Stripe: ``python -m easel_local.stripe``."""

import sys

from easel_kit.lifecycle import entry
from easel_local.stripe.main import run
from easel_local.stripe.settings import StripeSettings

if __name__ == "__main__":
    sys.exit(entry("easel_local.stripe", StripeSettings, run))
