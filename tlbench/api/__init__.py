"""What a script or a notebook calls: `tlbench.run` measures, and what it returns, a `tlbench.Run`, shows itself.

It is the same campaign as the command line's: the same checks, cells, processes and records in the same kind of folder.
Cells are measured in processes of their own that import nothing of the caller's, so that a script needs no guard.
"""
