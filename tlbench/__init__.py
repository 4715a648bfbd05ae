"""tlbench: which backbone, freeze policy and head for my images on my hardware, and what does each cost?"""

__version__ = "0.1.0"
