"""A run while it is measured: what it is about to measure, a line for each cell, the time that is left.

The command line, pytest and a notebook take the same. Nothing here imports the report, whose libraries take longer to
load than the first line may.
"""

from tlbench.progress.decoding import decoding_shown
from tlbench.progress.following import RunProgress, print_outlook
from tlbench.progress.race import RaceProgress
from tlbench.progress.spread import SpreadProgress

__all__ = ["RaceProgress", "RunProgress", "SpreadProgress", "decoding_shown", "print_outlook"]
