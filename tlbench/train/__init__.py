"""How a model learns: recipe, loop, augmentation, evaluation, and the frozen prefix's activations."""
