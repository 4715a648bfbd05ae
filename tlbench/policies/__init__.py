"""Freeze policies: which parameters train, when, and at which rate.

A text is read as a row of the table with its arguments (`parse`, `table`). The row looks at the model's `Outline` and
gives `Phase`s (`base`); `freezing` applies a phase to the model. A policy may put an adapter into the model first
(`lora`).
"""
