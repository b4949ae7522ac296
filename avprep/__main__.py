"""``python -m avprep``."""

from avprep.cli.main import main

main()
