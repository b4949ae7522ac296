"""``python -m benchmarks.gpu``."""

import sys

if __name__ == "__main__":  # the stages' processes import this file, too
    from benchmarks.gpu.main import main

    sys.exit(main())
