"""``python -m tlbench`` is the command ``tlbench``, of the interpreter that it is given."""

from tlbench.cli import command

if __name__ == "__main__":
    command()
