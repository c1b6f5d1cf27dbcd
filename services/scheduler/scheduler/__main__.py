"""`python -m scheduler [migrate]`."""

import sys

from easel_kit.lifecycle import entry
from scheduler.main import migrate, run
from scheduler.settings import Settings

sys.exit(entry("scheduler", Settings, run, {"migrate": migrate}))
