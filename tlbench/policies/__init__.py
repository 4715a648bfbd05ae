"""Freeze policies: which parameters train, when, and at which rate."""
