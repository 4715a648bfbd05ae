"""Prints runs in the terminal: verdict and table, pick under limits, comparison, speed-ups."""

from tlbench.report.terminal.comparison import print_comparison, print_discordances, print_speedups
from tlbench.report.terminal.recommendation import print_recommendation
from tlbench.report.terminal.summary import print_summary

__all__ = ["print_comparison", "print_discordances", "print_recommendation", "print_speedups", "print_summary"]
