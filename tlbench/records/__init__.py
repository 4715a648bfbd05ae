"""What a run leaves behind: records, the run's folder and its plan. Nothing here imports torch.

A run's folder (`run_folder`) holds what it is to measure (`plan`) and a line for each record (`record`, `lines`,
`strict_json`). `resuming` compares the two: what is done, and what is still to be made. `machine` says which records
may be averaged.
"""
