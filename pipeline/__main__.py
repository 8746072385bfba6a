"""`python -m pipeline <words>`: what every nox session runs."""

import gc
import sys

from pipeline.cli import main

gc.set_threshold(
    50_000
)  # records are many small objects that stay: a tenth of the time of 120 cards went into looking
sys.exit(main(sys.argv[1:]))
