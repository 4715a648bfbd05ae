"""What is asked: cells, axes, grids and settings. Nothing here imports torch."""
