"""``python -m avtrain``."""

from avtrain.cli import main

main()
