"""What a run leaves behind: records, the run's folder and its plan. Nothing here imports torch."""
