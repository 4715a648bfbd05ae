"""Records -> answers: rows, summaries, verdicts, comparisons, speed-ups. Nothing here imports torch."""
