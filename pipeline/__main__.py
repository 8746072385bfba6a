"""`python -m pipeline <words>`: what every nox session runs."""

import sys

from pipeline.cli import main

sys.exit(main(sys.argv[1:]))
