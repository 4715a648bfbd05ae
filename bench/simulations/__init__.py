"""Simulations of noise like ours: each says how often a statement of tlbench's is true, against what it promises."""
