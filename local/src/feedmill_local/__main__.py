"""``python -m feedmill_local`` is the command ``feedmill``."""

from feedmill_local.cli import main

main()
