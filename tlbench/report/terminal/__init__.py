"""Prints runs in the terminal: verdict and table, pick under limits, comparison, speed-ups."""

from tlbench.report.terminal.comparison import pair_names, print_comparison, print_speedups
from tlbench.report.terminal.recommendation import print_recommendation
from tlbench.report.terminal.summary import print_summary, verdict_text, verdict_text_of

__all__ = [
    "pair_names",
    "print_comparison",
    "print_recommendation",
    "print_speedups",
    "print_summary",
    "verdict_text",
    "verdict_text_of",
]
