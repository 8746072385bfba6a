"""`python -m pipeline <words>`: what every nox session runs."""

import gc
import sys

gc.disable()  # until all is imported, which stays: main enables it
# Records are many small objects that stay: a tenth of the time of 120 cards went into looking.
gc.set_threshold(50_000)

from pipeline.cli import main  # noqa: E402
from pipeline.workers import leave  # noqa: E402

leave(main(sys.argv[1:]))
