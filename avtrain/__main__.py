"""``python -m avtrain``."""

from avtrain.cli.main import main

main()
