"""Large photographs decoded at a fraction of their size: where, how exactly, and that it is said."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import save_image
from hypothesis import given
from hypothesis import strategies as st
from image_files import ORIENTATION, turned
from PIL import Image
from records import record

from tlbench.campaign import check as check_module
from tlbench.data import Request, load_data, scaled
from tlbench.data.decode import UPRIGHT, read_image, read_photograph
from tlbench.data.decoding import fitted
from tlbench.data.store import fit
from tlbench.errors import UserError
from tlbench.grid.cell import SINCE, Cell
from tlbench.grid.choices import DECODE
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.machine.kept import KEPT
from tlbench.measure import cell as cell_module
from tlbench.records.record import Record
from tlbench.report import write_report

PUBLISHED = Path(__file__).parents[1] / "results" / "published"


@pytest.fixture(autouse=True)
def nothing_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))
    KEPT.images.forget()
    yield
    KEPT.images.forget()


def request(size=32, resize=36, decode="scaled", **options):
    return Request(size=size, resize=resize, interpolation="bilinear", seed=0, decode=decode, **options)


def smooth(width, height, seed=0):
    """A photograph of sorts: detail of all sizes, no noise of single pixels, as cameras give none."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    fine = np.random.default_rng(seed + 1).integers(0, 60, (height // 4, width // 4, 3)).astype(np.uint8)
    large = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), np.int32)
    detail = np.asarray(Image.fromarray(fine).resize((width, height), Image.Resampling.BICUBIC), np.int32)
    return Image.fromarray((large * 3 // 4 + detail).clip(0, 255).astype(np.uint8))


def jpeg(path, width, height, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    smooth(width, height).save(path, "JPEG", quality=92, **options)
    return path


def decoded(path, asked):
    """The photograph as a request has it, and its pixels."""
    size_of = scaled.wanted(asked.decode, lambda w, h: _resized(asked, w, h))
    photo = read_photograph(path, wanted=size_of)
    return photo, fitted(photo, asked)


def _resized(asked, width, height):
    from tlbench.data.store import resized

    return resized(width, height, asked.resize, asked.crop_mode)


FRACTIONS = [
    # shorter side, resize, scaled, auto
    (36, 36, 1, 1), (143, 36, 1, 1), (144, 36, 2, 1), (287, 36, 2, 1), (288, 36, 4, 2), (576, 36, 8, 4),
    (1200, 36, 8, 8), (20, 36, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize(("shorter", "resize", "by_scaled", "by_auto"), FRACTIONS)
def test_what_is_decoded_is_at_least_so_many_times_as_large(shorter, resize, by_scaled, by_auto, tmp_path):
    path = jpeg(tmp_path / "a.jpg", shorter * 4 // 3, shorter)
    for decode, by in (("exact", 1), ("scaled", by_scaled), ("auto", by_auto)):
        photo, _ = decoded(path, request(resize=resize, decode=decode))
        assert min(photo.image.size) == -(-shorter // by), decode
        assert photo.size == (shorter * 4 // 3, shorter)
        assert (photo.box is None) == (by == 1)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(401, 299), (299, 401)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_all_but_those_of_the_whole_photograph(orientation, size, mode, tmp_path):
    """However the camera was held: half a pixel of shift would show."""
    upright = smooth(*size)
    stored = Image.fromarray(np.ascontiguousarray(turned(np.asarray(upright), orientation)))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(tmp_path / "a.jpg", quality=95, exif=exif.tobytes())
    asked = request(crop_mode=mode, fill=(9, 9, 9))
    photo, pixels = decoded(tmp_path / "a.jpg", asked)
    assert photo.box is not None
    assert photo.size == size
    exact = fit(read_image(tmp_path / "a.jpg"), 36, 32, Image.Resampling.BILINEAR, mode, (9, 9, 9))
    difference = np.abs(pixels.astype(int) - exact)
    assert difference.mean() < 1.5
    assert difference.max() < 24


@given(
    st.integers(1, 30), st.integers(1, 30), st.sampled_from([None, *UPRIGHT.values()]),
    st.tuples(*[st.floats(0, 1)] * 4),
)  # fmt: skip
def test_a_part_of_an_image_turns_with_it(width, height, turn, shares):
    left, right = sorted(round(share * width) for share in shares[:2])
    upper, lower = sorted(round(share * height) for share in shares[2:])
    if left == right or upper == lower:
        return
    mask = np.zeros((height, width), np.uint8)
    mask[upper:lower, left:right] = 1
    image = Image.fromarray(mask)
    whole = image if turn is None else image.transpose(turn)
    found = scaled.turned((left, upper, right, lower), (width, height), turn)
    inside = np.asarray(whole)[int(found[1]) : int(found[3]), int(found[0]) : int(found[2])]
    assert inside.size == mask.sum() == inside.sum()


def test_what_is_no_large_jpeg_is_decoded_exactly(tmp_path):
    smooth(400, 300).save(tmp_path / "a.png")
    jpeg(tmp_path / "b.jpg", 100, 80)
    for name in ("a.png", "b.jpg"):
        pixels = [decoded(tmp_path / name, request(decode=decode))[1] for decode in DECODE]
        assert all(np.array_equal(pixels[0], other) for other in pixels[1:]), name


def test_a_photograph_of_two_pictures_is_its_first(tmp_path):
    smooth(400, 300).save(
        tmp_path / "a.mpo", "MPO", save_all=True, append_images=[smooth(400, 300, seed=5)], quality=92
    )
    photo, pixels = decoded(tmp_path / "a.mpo", request())
    assert photo.box is not None
    exact = fit(read_image(tmp_path / "a.mpo"), 36, 32, Image.Resampling.BILINEAR)
    assert np.abs(pixels.astype(int) - exact).mean() < 1.5


def test_room_is_taken_for_what_is_decoded_and_of_a_progressive_one_for_all(tmp_path):
    asked = {}
    for name, options in (("plain", {}), ("progressive", {"progressive": True})):
        path = jpeg(tmp_path / f"{name}.jpg", 640, 480, **options)
        read_photograph(path, lambda w, h, name=name: asked.update({name: (w, h)}), wanted=lambda w, h: (80, 60))
    assert asked == {"plain": (80, 60), "progressive": (640, 480)}


def test_a_torn_photograph_is_none_either_way(tmp_path):
    path = jpeg(tmp_path / "a.jpg", 640, 480)
    path.write_bytes(path.read_bytes()[:2000])
    for wanted in (None, lambda w, h: (80, 60)):
        with pytest.raises(ValueError, match="truncated"):
            read_photograph(path, wanted=wanted)


# --- data sets ------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path):
    """Large photographs and small ones."""
    for label, shift in (("a", 0), ("b", 7)):
        for n in range(4):
            smooth(400, 300, seed=n + shift).save(_made(tmp_path / "mixed" / label / f"large{n}.jpg"), quality=92)
        save_image(tmp_path / "mixed" / label / "small.jpg", seed=shift)
        save_image(tmp_path / "mixed" / label / "small.png", seed=shift + 1)
    return tmp_path / "mixed"


def _made(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_it_is_counted_and_identified(mixed):
    found = {decode: load_data(f"folder:{mixed}", request(decode=decode)) for decode in DECODE}
    assert {decode: data.decoding for decode, data in found.items()} == {
        "exact": {"could": 8}, "scaled": {"scaled": 8}, "auto": {"scaled": 8}
    }  # fmt: skip
    assert found["exact"].images_sha256 != found["scaled"].images_sha256
    assert found["exact"].identities == found["scaled"].identities
    positions = [[data.positions[part].tolist() for part in ("train", "val", "test")] for data in found.values()]
    assert positions[0] == positions[1] == positions[2], "the splits are by what is in the files"


def said(root, decode, **options):
    lines, found = [], {}
    axes = {"dataset": (f"folder:{root}",), "backbone": ("resnet18",), "image_size": (32,), "decode": decode}
    check_module.check(Grid(axes=axes), Settings(**options), lines.append, lambda name, has: found.update({name: has}))
    return found[f"folder:{root}"].decoding


def test_the_preflight_says_how_photographs_are_decoded(mixed, photos):
    assert said(mixed, ("exact",)).startswith("exact: 8 of 12 photographs are so large that --decode scaled takes")
    assert said(mixed, ("scaled",)).startswith(
        "scaled: 8 of 12 photographs by libjpeg at 1/2 to 1/8 of their size, at l"
    )
    assert said(mixed, ("auto",)).startswith("auto: 8 of 12 photographs")
    assert said(photos, ("exact",)) == ""
    assert said(photos, ("scaled",)) == "scaled: exactly, since no photograph is a JPEG of twice the size asked for"
    both = said(mixed, ("exact", "scaled"))
    assert "exact: 8 of" in both
    assert "scaled: 8 of" in both


def test_the_report_says_how_many(tmp_path, monkeypatch):
    monkeypatch.setattr("tlbench.report.plots.PLOTS", {})
    made = record(dataset="folder:a", decode="scaled", scaled_images=8)
    write_report([made, record(dataset="folder:a", seed=1)], tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert text.count("folder:a: 8 photographs decoded at a fraction of their size (--decode scaled).") == 1


def test_the_record_says_how_many(mixed):
    cell = Cell(
        backbone="resnet18", weights="random", dataset=f"folder:{mixed}", image_size=32, epochs=1, batch_size=4,
        layout="contiguous",
    )  # fmt: skip
    exact, other = (cell_module.run_cell(replace(cell, decode=decode), Settings()) for decode in ("exact", "scaled"))
    assert "scaled_images" not in exact.to_dict()
    assert other.to_dict()["scaled_images"] == 8
    assert exact.images_sha256 != other.images_sha256
    assert Record.from_dict(json.loads(json.dumps(other.to_dict()))).scaled_images == 8


# --- what is asked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", sorted(path.name for path in PUBLISHED.iterdir()))
def test_cells_that_say_nothing_of_it_keep_their_keys(run):
    lines = (PUBLISHED / run / "records.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines[:: max(1, len(lines) // 10)]:
        told = json.loads(line)
        record = Record.from_dict(told)
        assert record.cell.decode == "exact"
        assert record.key == told["key"]


def test_fields_that_are_younger_leave_the_key_alone_at_one_value():
    for name, value in SINCE.items():
        assert getattr(Cell(), name) == value
        older = {key: it for key, it in asdict(Cell()).items() if key not in SINCE}
        assert Cell().key == hashlib.sha256(json.dumps(older, sort_keys=True).encode()).hexdigest()[:16]
        assert replace(Cell(), **{name: "another"}).key != Cell().key


def test_what_has_no_files_is_not_decoded_in_another_way():
    with pytest.raises(UserError, match=r"--decode scaled is for photographs in files, and 'digits' has none; use"):
        check_module.check(Grid(axes={"decode": ("exact", "scaled")}), Settings())


def test_another_word_is_refused(photos):
    with pytest.raises(UserError, match=r"choice for --decode.*'scale'.*did you mean 'scaled'"):
        check_module.check(Grid(axes={"dataset": (f"folder:{photos}",), "decode": ("scale",)}), Settings())
