"""Gives each Python process that `launch.py` starts, and its children, the stand-in as soon as torch is there."""

import importlib
import importlib.abc
import importlib.machinery
import sys


class After(importlib.abc.MetaPathFinder):
    """Does what the stand-in needs when torch, or a module of tlbench, has just been imported."""

    def find_spec(self, name, path=None, target=None):
        if name != "torch" and not name.startswith("tlbench."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            if name == "torch":
                importlib.import_module("stand_in")
            # The product that a GPU's ceiling is measured with takes a processor minutes.
            vars(module).get("MATRIX_SIZE", {}).update(cpu=64, cuda=64)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, After())
