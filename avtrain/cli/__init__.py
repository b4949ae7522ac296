"""The command line ``avtrain``. Where it cannot run, one sentence says why."""

import sys
from importlib.util import find_spec
from pathlib import Path

# Both commands hold these lines, because what they share is in the package that may be hidden. It
# is not imported before it is known to be ours: it may be a script of the user's.
_spec = find_spec("shards")
_file = None if _spec is None else _spec.origin
_problem = ""
if _file is None:
    _problem = "the package `shards` of avsa360 is missing; install avsa360 again"
elif not Path(_file).read_text("utf-8", "replace").startswith('"""Shard sets of avsa360'):
    _problem = (
        f"{_file} hides the package `shards` of avsa360; rename or uninstall it, or run this "
        "command in another folder"
    )
else:
    try:
        import shards  # noqa: F401
    except ImportError as error:
        _problem = str(error)
if _problem:
    # The names of files may hold escape codes.
    sys.stderr.write(f"Error: {_problem if _problem.isprintable() else ascii(_problem)}\n")
    sys.exit(2)
