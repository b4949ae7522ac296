"""``python -m benchmarks.study``."""

import sys

from benchmarks.study.main import main

sys.exit(main())
