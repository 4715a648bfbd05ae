"""Many cells: what is asked is checked (`check`) and ordered into steps (`steps`); a campaign measures them, in this
process or in others (`isolate`), and takes in each record. A run can be resumed, a record replayed, and two cells
matched in a duel.
"""
