"""Models that are kept: a folder with weights, a card and what brings a photograph to the model's input.

A model folder holds ``model.safetensors`` (weights and buffers, never a pickle), ``card.json`` (strict JSON with a
checksum: what the model is, how images are prepared, what was measured, what its sets of classes go by) and
``README.md``, the same in words. `load_model` needs nothing of the run that it came from.
"""
