"""What this process keeps in memory for later cells. One owner: whoever measures anew forgets it all in one call.

A thing stands on the shelf of its kind. What is kept on the disk is the business of the module that keeps it there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Hashable, Iterator
from typing import Any

MEMORY = "memory"
"""The main memory; the memory of a GPU has its name, cuda:0."""


class Shelf:
    """A shelf holds things of one kind by key, the one used longest ago first."""

    def __init__(self) -> None:
        self._things: OrderedDict[Hashable, tuple[Any, int, str]] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._things

    def __iter__(self) -> Iterator[Any]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)

    def bytes(self, where: str = MEMORY) -> int:
        """Returns the bytes that all things here take of one kind of memory, as far as they count against a budget."""
        return sum(taken for _, taken, place in self._things.values() if place == where)

    def get(self, key: Hashable) -> Any:
        """Returns the thing, which is now the one used last; None where there is none."""
        if key not in self._things:
            return None
        self._things.move_to_end(key)
        return self._things[key][0]

    def put(self, key: Hashable, thing: Any, taken: int = 0, where: str = MEMORY) -> None:
        """Keeps a thing that takes so many bytes of the budget of one kind of memory."""
        self._things[key] = (thing, taken, where)

    def drop_oldest(self, where: str = MEMORY, besides: Container[Any] = ()) -> bool:
        """Forgets what was used longest ago of all that takes such memory, ``besides`` what has these keys; False where
        nothing does.
        """
        for key, (_, taken, place) in self._things.items():
            if taken and place == where and key not in besides:
                del self._things[key]
                return True
        return False

    def forget(self, which: Callable[[Any], bool] = lambda key: True) -> None:
        """Drops whatever has such a key."""
        for key in [key for key in self._things if which(key)]:
            del self._things[key]


class Kept:
    """Holds all shelves of this process."""

    def __init__(self) -> None:
        self.images = Shelf()
        """Decoded data sets (`tlbench.data.store`)."""
        self.device_images = Shelf()
        """Images on a GPU, of the last data set only (`tlbench.train.placed`)."""
        self.activations = Shelf()
        """Outputs of frozen stages (`tlbench.train.activations`)."""
        self.backbones = Shelf()
        """Loaded weights, the last ones only (`tlbench.measure.shared_weights`)."""
        self.hashes = Shelf()
        """SHA-256 of parts of those weights."""
        self.costs = Shelf()
        """Parameters and FLOPs by stage (`tlbench.measure.costs`)."""
        self.ceilings = Shelf()
        """FLOP/s of a large matrix product (`tlbench.machine.ceiling`)."""

    def forget_weights(self) -> None:
        """Makes the next cell load its weights anew."""
        self.backbones.forget()
        self.hashes.forget()

    def forget(self) -> None:
        """Empties all shelves: what is needed next is loaded, decoded, computed or measured anew."""
        for shelf in vars(self).values():
            shelf.forget()


KEPT = Kept()
