"""Where people read what the command line says."""

from __future__ import annotations

import sys

from rich.console import Console

# Other programs, and logs, get their lines whole.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, highlight=False, soft_wrap=True)
