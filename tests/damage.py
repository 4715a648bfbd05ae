"""Changes JSON data at random, for the tests of what reads records."""

from copy import deepcopy


def places(data, path=()):
    """Every way to a value inside."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def damage(data, generator, values, names, of=6):
    """Changes up to three places of an object, in itself: one in ``of`` changes takes a value out, one in ``of`` gives
    it another of the ``names``, the others put one of ``values`` in its place.
    """
    for _ in range(generator.choice((1, 1, 2, 3))):
        *way, last = generator.choice(list(places(data)))
        inner = data
        for key in way:
            inner = inner[key]
        how = generator.randrange(of)
        if how == 0:
            del inner[last]
        elif how == 1 and isinstance(inner, dict):
            inner[generator.choice(names)] = inner.pop(last)
        else:
            inner[last] = deepcopy(generator.choice(values))
        if not data:
            break
