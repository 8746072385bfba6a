"""`python -m pipeline <words>`: what every nox session runs."""

import gc
import sys

gc.disable()  # what is imported stays

from pipeline.cli import main  # noqa: E402
from pipeline.workers import leave  # noqa: E402

gc.freeze()
gc.enable()
# Records are many small objects that stay: a tenth of the time of 120 cards went into looking.
gc.set_threshold(50_000)
leave(main(sys.argv[1:]))
