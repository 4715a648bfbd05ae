"""Where the decoded images of a data set will lie, and what that costs, in words, before anything trains."""

from __future__ import annotations

from tlbench.campaign.seen import Seen
from tlbench.data import DATASETS, parse_dataset
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.grid.values import about, written_size


def about_room(found: Seen, read: int, dataset: str, grid: Grid, settings: Settings) -> list[str]:
    """Says in lines where the images of a data set, decoded to ``read`` pixels a side, lie if not in memory, and those
    of other sizes of the grid if they lie nowhere.

    Errors: UserError where those of a data set that cannot be decoded on the way have no room anywhere.
    """
    from tlbench.backbones.known import BACKBONES
    from tlbench.data.rooms import NOWHERE, place_of
    from tlbench.data.store import check_room

    own = [known.image_size for name in grid.axes["backbone"] if (known := BACKBONES.get(name.partition("@")[0]))]
    sizes = {size for given in grid.axes["image_size"] for size in ([given] if given else own)}
    files, lines = DATASETS[parse_dataset(dataset)[0]].of_files, []
    for size in [read, *sorted(sizes - {read})]:
        if not files:
            check_room(found.images, size)
        place = place_of(found.images, size, settings.data_ram_bytes, settings.data_disk_bytes)
        if words := _in_words(place, found, size, settings) if size == read or place == NOWHERE else "":
            at = f" at {size} px" if size != read else ""
            lines.append(words.format(of=f"{dataset}{at}"))
    return lines


def _in_words(place: str, found: Seen, size: int, settings: Settings) -> str:
    """Says what it costs that images lie in a place, what a person has to know first; nothing of those in memory."""
    from tlbench.data.decoded_folder import folder
    from tlbench.data.rooms import MEMORY, NOWHERE, TEMPORARY
    from tlbench.data.store import memory_for_images, temporary_folder, workers

    if place == MEMORY:
        return ""
    room = written_size(memory_for_images(settings.data_ram_bytes))
    take = f"those of {{of}} take {written_size(found.images * 3 * size * size)}, and memory has {room} for them"
    if place == NOWHERE:
        threads, seconds = workers(), found.decode_seconds
        time = f", about {about(seconds * found.images / threads)} for all of them" if seconds else ""
        return (
            f"images are decoded anew in each epoch{time}; so they are, by {threads} threads, for each evaluation that "
            f"computes with pixels; {take}, the disk no room either; --data-ram, --data-disk and --image-size change "
            "that"
        )
    if place == TEMPORARY:
        return (
            f"decoded images lie in a file that goes with the run; {take}; it is in {_plain(temporary_folder())}, "
            "TMPDIR names another folder, and a smaller --image-size takes less"
        )
    return (
        f"decoded images lie in a file, not in memory; {take}; batches are read from {_plain(str(folder()))}, as fast "
        "as from memory for as long as the system keeps it there, else as the disk is"
    )


def _plain(path: str) -> str:
    """Quotes a path, in a text whose braces stand for something."""
    return repr(path).replace("{", "{{").replace("}", "}}")
