"""The command line ``avtrain``. Where it cannot run, one sentence says why."""

import sys
from importlib.util import find_spec
from pathlib import Path

# Found, but not executed: it may be a script of the user's. Both commands hold these lines, because
# what they share is in the package that may be hidden.
_spec = find_spec("shards")
_file = None if _spec is None else _spec.origin
_problem = None
if find_spec("fcntl") is None:
    _problem = "avsa360 runs on Linux and macOS; on Windows, install it in WSL (there is no fcntl)"
elif _file is None:
    _problem = "the package `shards` of avsa360 is missing; install avsa360 again"
elif not Path(_file).read_text("utf-8", "replace").startswith('"""Shard sets of avsa360'):
    _problem = (
        f"{_file} hides the package `shards` of avsa360; rename or uninstall it, or run this "
        "command in another folder"
    )
if _problem is not None:
    sys.stderr.write(f"Error: {_problem}\n")
    sys.exit(2)
