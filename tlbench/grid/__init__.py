"""What is asked: cells, axes, grids and settings. Nothing here imports torch.

Values as people write them (`values`) are read by `axes` into a `Grid`, and by `settings` into `Settings`. A grid
expands to `Cell`s: what is measured; the settings say how.
"""
