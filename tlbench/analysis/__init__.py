"""Records -> answers. A record becomes a row of figures (`figures`, `derived`, `frame`), the rows of one configuration
become one row with intervals (`summary`), and from those come verdicts, picks, comparisons, speed-ups and efficiencies.
Nothing here imports torch.
"""
