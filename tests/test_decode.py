"""How image files become pixels: against PIL, torchvision and timm over a table of formats, modes, orientations and
crop modes; and images of more than 8 bits.
"""

import io
import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from image_files import (
    FILES,
    HEIGHT,
    PLAIN,
    TURNED,
    WIDTH,
    encoded,
    pgm,
    picture,
    pil_reads,
    png,
    ppm,
    tagged,
    tiff,
    turned,
    twelve,
)
from PIL import Image, ImageOps
from records import record
from tiers import sweep
from timm.data import create_transform, resolve_data_config
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from tlbench.backbones import timm as adapter
from tlbench.backbones.base import InputSpec
from tlbench.campaign.asked import parse_asked
from tlbench.campaign.campaign import begin
from tlbench.data import Request, lent, load_data, store
from tlbench.data.decode import read_image
from tlbench.data.depth import FULL, Extent, Scale, scale_of
from tlbench.data.pixel_range import in_words
from tlbench.errors import NotApplicable, UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.kept import KEPT
from tlbench.measure.findings import Findings
from tlbench.measure.images import load_images
from tlbench.records.record import Record
from tlbench.report import write_report

pytestmark = pytest.mark.filterwarnings("ignore:Palette images")


@pytest.fixture(autouse=True)
def nothing_kept():
    KEPT.images.forget()
    yield
    KEPT.images.forget()
    lent._borrowed.clear()


def read(content, tmp_path, scale=FULL, tell=lambda extent: None):
    file = tmp_path / "x.png"
    file.write_bytes(content)
    image = read_image(file, scale=scale, tell=tell)
    assert image.mode == "RGB"
    return np.asarray(image)


def by_pil(content):
    """What PIL shows, upright, as RGB."""
    with Image.open(io.BytesIO(content)) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


# --- what a file shows ----------------------------------------------------------------------------------------


def test_the_table_is_long_enough():
    assert len(PLAIN) >= 50
    assert len(FILES) >= 60
    assert len(TURNED) * 8 == len(FILES) - len(PLAIN)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_pil_shows_it(name, tmp_path):
    content = FILES[name]()
    expected = by_pil(content)
    assert expected.size in ((WIDTH, HEIGHT), (HEIGHT, WIDTH))
    np.testing.assert_array_equal(read(content, tmp_path), np.asarray(expected))


EXACT = {name: made for name, made in TURNED.items() if name != "JPEG" and made[1] == "RGB"}


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_orientation_is_obeyed_once(kind, mode, tmp_path):
    """Held against the Exif standard, not against PIL."""
    upright = np.asarray(picture(mode))
    form, _, options = EXACT[kind]
    for orientation in range(1, 9) if "compression" in options else range(10):  # libtiff writes no others
        stored = Image.fromarray(np.ascontiguousarray(turned(upright, orientation)))
        found = read(tagged(form, orientation, stored, **options), tmp_path)
        expected = upright if mode == "RGB" else np.repeat(upright[..., None], 3, 2)
        np.testing.assert_array_equal(found, expected, err_msg=f"orientation {orientation}")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["grey", "colour", "most significant byte first", "planes", "signed"])
def test_an_orientation_is_obeyed_once_whatever_the_depth(kind, orientation, tmp_path):
    upright = np.asarray(picture("RGB" if kind in ("colour", "planes") else "L")).astype(np.int32) * 16
    stored = turned(upright, orientation)
    if kind == "planes":
        content = tiff(
            (stored >> 4).astype(np.uint8), photometric=2, planes=2, orientation=orientation
        )  # of 8 bits: those of 16 are not read
    elif kind == "colour":
        content = tiff(stored.astype(np.uint16), photometric=2, orientation=orientation)
    else:
        order = ">" if kind.startswith("most") else "<"
        content = tiff(stored.astype(np.int16 if kind == "signed" else np.uint16), order=order, orientation=orientation)
    found = read(content, tmp_path, Scale(bits=12))
    np.testing.assert_array_equal(found[..., 0], (upright >> 4)[..., 0] if upright.ndim == 3 else upright >> 4)


@pytest.mark.parametrize(
    ("kind", "metadata"),
    [
        ("JPEG", {"exif": b"Exif\0\0 no directory at all"}),
        ("JPEG", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\xff\x01\x12"}),
        ("WEBP", {"exif": b"II*\0\xff\xff\xff\x7f", "lossless": True}),
        ("PNG", {"exif": b"MM\0*"}),
    ],
)
def test_metadata_that_cannot_be_read_turn_no_image(kind, metadata, tmp_path):
    """torchvision's loader does not look at them."""
    content = encoded(picture(), kind, **metadata)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read(content, tmp_path), expected)


def test_raw_metadata_of_a_png_that_cannot_be_read_turn_no_image(tmp_path):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Raw profile type exif", "\nexif\n  no hexadecimal\n zz")
    found = read(encoded(picture(), "PNG", pnginfo=info), tmp_path)
    np.testing.assert_array_equal(found, np.asarray(picture()))


def premultiplied_grey():
    """60 of 127, at a transparency of 120 of 255."""
    pixels = np.stack([np.full((HEIGHT, WIDTH), 60), np.full((HEIGHT, WIDTH), 120)], -1).astype(np.uint8)
    return tiff(pixels, extra=1)


@pytest.mark.skipif(not pil_reads(premultiplied_grey), reason="this Pillow does not read it")
def test_grey_that_was_multiplied_by_its_transparency_is_read(tmp_path):
    """PIL refuses to convert it at once."""
    found = read(premultiplied_grey(), tmp_path)
    assert abs(int(found[0, 0, 0]) - 127) <= 1


TRUNCATED = ["JPEG", "progressive", "PNG", "WEBP", "TIFF", "BMP", "PPM"]


@pytest.mark.parametrize("kind", TRUNCATED)
def test_a_truncated_file_is_refused_as_pil_refuses_it(kind, tmp_path):
    options = {"progressive": True} if kind == "progressive" else {}
    content = encoded(picture(size=(96, 64)), "JPEG" if options else kind, **options)
    content = content[: len(content) * 2 // 3]
    with pytest.raises((OSError, SyntaxError, ValueError)):
        by_pil(content)
    with pytest.raises(ValueError, match=r"^[ -~]+$"):
        read(content, tmp_path)


# --- what a backbone sees -------------------------------------------------------------------------------------

ENDINGS = {"JPEG": "jpg", "PNG": "png", "TIFF": "tif", "WebP": "webp", "BMP": "bmp", "PPM": "ppm", "PGM": "pgm"}


@pytest.fixture(scope="module")
def every_file(tmp_path_factory):
    """All files of the table in a folder, and what PIL shows of each, in the order in which they are decoded."""
    root = tmp_path_factory.mktemp("files")
    contents = [make() for make in FILES.values()]
    half = len(contents) // 2
    for part, name, some in (("train", "a", contents[:half]), ("train", "b", contents[half:])):
        (root / part / name).mkdir(parents=True)
        for n, content in enumerate(some):
            ending = ENDINGS.get(list(FILES)[n + (half if name == "b" else 0)].split()[0].rstrip(","), "png")
            (root / part / name / f"{n:04}.{ending}").write_bytes(content)
    for name in "ab":
        (root / "test" / name).mkdir(parents=True)
        for n in range(2):
            picture(seed=90 + n).save(root / "test" / name / f"{n}.png")
    return root, [by_pil(content) for content in contents]


def pixels_of(root, spec, size):
    cell = Cell(backbone="resnet18", dataset=f"folder:{root}")
    return load_images(cell, Settings(), spec, size).train.pixels


MEAN, STD = (0.48, 0.46, 0.41), (0.23, 0.22, 0.23)
SPECS = {
    "center": (32, 0.875, "center", "bicubic"),
    "center, odd": (31, 0.9, "center", "bilinear"),
    "squash": (32, 0.9, "squash", "bicubic"),
    "border": (32, 0.875, "border", "bicubic"),
    "border, small": (10, 0.8, "border", "bilinear"),
}


def spec_of(config):
    """A model's input, as the adapter reads it of timm's configuration."""
    model = SimpleNamespace(pretrained_cfg={"mean": MEAN, "std": STD, "num_classes": 2, **config})
    return adapter.input_spec(model)


def by_timm(config, size):
    """timm's own transform for a model with this configuration at a size: PIL -> (3, size, size) uint8."""
    data = resolve_data_config({"input_size": (3, size, size)}, pretrained_cfg={"mean": MEAN, "std": STD, **config})
    transform = create_transform(**data, normalize=False)
    return lambda image: np.asarray(transform(image))


@pytest.mark.parametrize("case", SPECS)
def test_every_file_is_preprocessed_as_by_timm(case, every_file):
    root, images = every_file
    size, share, mode, interpolation = SPECS[case]
    config = {"input_size": (3, size, size), "crop_pct": share, "crop_mode": mode, "interpolation": interpolation}
    found = pixels_of(root, spec_of(config), size)
    transform = by_timm(config, size)
    for name, one, image in zip(FILES, found, images, strict=False):
        np.testing.assert_array_equal(one, transform(image), err_msg=name)


@pytest.mark.parametrize(("size", "resize", "interpolation"), [(28, 33, "bilinear")])
def test_every_file_is_preprocessed_as_by_torchvision(size, resize, interpolation, every_file):
    root, images = every_file
    spec = InputSpec(size=size, resize=resize, mean=MEAN, std=STD, interpolation=interpolation)
    preset = ImageClassification(
        crop_size=size, resize_size=resize, mean=MEAN, std=STD, interpolation=InterpolationMode(interpolation)
    )
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    for name, one, image in zip(FILES, pixels_of(root, spec, size), images, strict=False):
        normal = (torch.from_numpy(one) / 255 - mean) / std
        torch.testing.assert_close(normal, preset(image), msg=name, rtol=0, atol=1e-5)


def test_transforms_see_a_loaded_tiff_upright_without_turning_it_again():
    """What torchvision's and timm's loaders do to a TIFF, which PIL turns while it loads it."""
    upright = picture()
    stored = Image.fromarray(np.ascontiguousarray(turned(np.asarray(upright), 6)))
    with Image.open(io.BytesIO(tagged("TIFF", 6, stored))) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(upright))


def registered():
    """Each way in which timm's pretrained models see an image, at the smallest size: (size, crop_pct, crop_mode,
    interpolation)."""
    found = {}
    for name in timm.list_models(pretrained=True, include_tags=True):
        config = timm.get_pretrained_cfg(name)
        if config.input_size[0] == 3:
            way = (config.crop_pct or 0.875, config.crop_mode or "center", config.interpolation)
            found[way] = min(found.get(way, 10**4), config.input_size[-1])
    return sorted((size, *way) for way, size in found.items())


REGISTERED = registered()
SQUASHED = [one for one in REGISTERED if one[2] != "center"]


def test_timm_has_models_whose_images_are_squashed():
    assert SQUASHED


@pytest.mark.parametrize(("size", "share", "mode", "interpolation"), sweep(REGISTERED, SQUASHED[:3]))
def test_every_pixel_is_that_of_timms_transform_for_its_models(size, share, mode, interpolation):
    config = {"input_size": (3, size, size), "crop_pct": share, "crop_mode": mode, "interpolation": interpolation}
    spec = spec_of(config)
    image = picture(size=(301, 257))
    for asked in (size, 64, 100):
        found = store.fit(
            image, spec.resized(asked), asked, store.RESAMPLING[spec.interpolation], spec.crop_mode, spec.fill
        )
        np.testing.assert_array_equal(found, by_timm(config, asked)(image), err_msg=f"{asked} px")


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (30, 200), (23, 24), (24, 24), (64, 30)])
def test_odd_shapes_are_cropped_as_by_timm(crop_mode, size):
    config = {"input_size": (3, 24, 24), "crop_pct": 0.9, "crop_mode": crop_mode, "interpolation": "bicubic"}
    spec, image = spec_of(config), picture(size=size)
    found = store.fit(image, spec.resize, 24, store.RESAMPLING["bicubic"], spec.crop_mode, spec.fill)
    np.testing.assert_array_equal(found, by_timm(config, 24)(image))


def test_a_line_of_pixels_keeps_one_in_a_border():
    """timm's own transform fails: none of its width would be left."""
    image = Image.new("RGB", (1, 400), "red")
    found = store.fit(image, 24, 24, store.RESAMPLING["bilinear"], "border", (1, 2, 3))
    assert found.shape == (3, 24, 24)
    assert (found[0] == 255).sum() == 24


def test_what_timms_configuration_leaves_out_is_timms_default():
    spec = spec_of({"input_size": (3, 32, 32)})
    assert (spec.resize, spec.crop_mode, spec.interpolation) == (math.floor(32 / 0.875), "center", "bicubic")
    assert spec_of({"input_size": (3, 32, 32), "crop_mode": "something else"}).crop_mode == "center"


def test_a_model_of_images_that_are_not_square_is_refused():
    with pytest.raises(NotApplicable, match="images are 768 pixels wide and 1024 high, and here they are square"):
        spec_of({"input_size": (3, 1024, 768)})


def test_an_unknown_crop_mode_is_refused():
    with pytest.raises(UserError, match="unknown crop mode 'sqash'; did you mean 'squash'"):
        InputSpec(size=8, resize=8, mean=MEAN, std=STD, interpolation="bilinear", crop_mode="sqash")


def test_crop_modes_of_one_folder_are_kept_apart(tmp_path):
    for n, name in enumerate("aabb"):
        (tmp_path / "train" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "test" / name).mkdir(parents=True, exist_ok=True)
        for part in ("train", "test"):
            picture(seed=n + 10 * (part == "test")).save(tmp_path / part / name / f"{n}.png")
    config = {"input_size": (3, 16, 16), "crop_pct": 1.0, "interpolation": "bilinear"}
    modes = ("center", "squash", "border")
    seen = [pixels_of(tmp_path, spec_of({**config, "crop_mode": mode}), 16) for mode in modes]
    other = pixels_of(tmp_path, spec_of({**config, "crop_mode": "border", "mean": (0, 0, 0)}), 16)
    for n, one in enumerate(seen):
        for more in [*seen[n + 1 :], other]:
            assert not np.array_equal(one, more)


# --- more than 8 bits -----------------------------------------------------------------------------------------

Y, X = np.mgrid[:HEIGHT, :WIDTH]
RAMP = (Y * WIDTH + X) * 4095 // (WIDTH * HEIGHT - 1)
"""From 0 to 4,095: what 12 bits hold."""
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], -1)
CT = RAMP - 1024
UNIT = (RAMP / 4095).astype(np.float32)
TWELVE, WHOLE = Scale(bits=12), Scale(bits=16)


def stacked(*channels):
    return np.stack(channels, -1).astype(np.uint16)


def grey_file(kind, **options):
    size = (WIDTH, HEIGHT)
    return lambda values: encoded(Image.frombytes("I;16", size, values.astype("<u2").tobytes()), kind, **options)


DEEP = {
    "PNG": (lambda: png(RAMP), TWELVE, RAMP >> 4),
    "PNG by PIL": (lambda: grey_file("PNG")(RAMP), TWELVE, RAMP >> 4),
    "PNG of all 16 bits": (lambda: png(RAMP * 16), WHOLE, RAMP >> 4),
    "PNG of 8 bits": (lambda: png(RAMP >> 4), Scale(bits=8), RAMP >> 4),
    "PNG of 10 bits": (lambda: png(RAMP >> 2), Scale(bits=10), RAMP >> 4),
    "PNG of 14 bits": (lambda: png(RAMP << 2), Scale(bits=14), RAMP >> 4),
    "TIFF": (lambda: grey_file("TIFF")(RAMP), TWELVE, RAMP >> 4),
    "TIFF LZW": (lambda: grey_file("TIFF", compression="tiff_lzw")(RAMP), TWELVE, RAMP >> 4),
    "TIFF, most significant byte first": (lambda: tiff(RAMP.astype(np.uint16), order=">"), TWELVE, RAMP >> 4),
    "TIFF, white is zero": (lambda: tiff(RAMP.astype(np.uint16), photometric=0), TWELVE, 255 - (RAMP >> 4)),
    "TIFF of 12 bits": (lambda: twelve(RAMP), FULL, RAMP >> 4),
    "TIFF of 32 bits": (lambda: tiff(RAMP.astype(np.int32)), TWELVE, RAMP >> 4),
    "TIFF of 32 bits without a sign": (lambda: tiff(RAMP.astype(np.uint32)), TWELVE, RAMP >> 4),
    "TIFF with a sign": (lambda: tiff(RAMP.astype(np.int16)), TWELVE, RAMP >> 4),
    "CT": (lambda: tiff(CT.astype(np.int16)), Scale(black=-1024, bits=12), RAMP >> 4),
    "CT, most significant byte first": (
        lambda: tiff(CT.astype(np.int16), order=">"),
        Scale(black=-1024, bits=12),
        RAMP >> 4,
    ),
    "CT of 32 bits": (lambda: tiff(CT.astype(np.int32)), Scale(black=-1024, bits=12), RAMP >> 4),
    "TIFF of 8 bits with a sign": (
        lambda: tiff(((RAMP >> 4) - 128).astype(np.int8)),
        Scale(black=-128, bits=8),
        RAMP >> 4,
    ),
    "floating point": (lambda: tiff(UNIT), FULL, (UNIT * np.float32(255.999)).astype(int)),
    "floating point, white is zero": (
        lambda: tiff(UNIT, photometric=0),
        FULL,
        255 - (UNIT * np.float32(255.999)).astype(int),
    ),
    "PGM": (lambda: pgm(RAMP, 65535), TWELVE, RAMP >> 4),
    "PGM that says 12 bits": (lambda: pgm(RAMP, 4095), FULL, np.round(RAMP / 4095 * 65535).astype(int) >> 8),
    "PPM": (lambda: ppm(COLOURS, 65535), TWELVE, COLOURS >> 4),
    "PPM of all 16 bits": (lambda: ppm(COLOURS * 16, 65535), WHOLE, COLOURS >> 4),
    "PNG RGB": (lambda: png(COLOURS), TWELVE, COLOURS >> 4),
    "PNG RGB of all 16 bits": (lambda: png(COLOURS * 16), WHOLE, COLOURS >> 4),
    "PNG RGB of 8 bits": (lambda: png(COLOURS >> 4), Scale(bits=8), COLOURS >> 4),
    "PNG RGBA": (lambda: png(stacked(*COLOURS.transpose(2, 0, 1), np.full(RAMP.shape, 65535))), TWELVE, COLOURS >> 4),
    "PNG grey alpha": (lambda: png(stacked(RAMP, np.full(RAMP.shape, 65535))), TWELVE, RAMP >> 4),
    "TIFF RGB": (lambda: tiff(COLOURS.astype(np.uint16), photometric=2), TWELVE, COLOURS >> 4),
    "TIFF RGB, most significant byte first": (
        lambda: tiff(COLOURS.astype(np.uint16), photometric=2, order=">"),
        TWELVE,
        COLOURS >> 4,
    ),
    "TIFF RGB deflate": (lambda: tiff(COLOURS.astype(np.uint16), photometric=2, packed=True), TWELVE, COLOURS >> 4),
    "TIFF RGB deflate, most significant byte first": (
        lambda: tiff(COLOURS.astype(np.uint16), photometric=2, order=">", packed=True),
        TWELVE,
        COLOURS >> 4,
    ),
    "TIFF planes of all 16 bits": (
        lambda: tiff((COLOURS * 16).astype(np.uint16), photometric=2, planes=2, packed=True),
        WHOLE,
        COLOURS >> 4,
    ),
    "TIFF RGBA": (
        lambda: tiff(stacked(*COLOURS.transpose(2, 0, 1), np.full(RAMP.shape, 65535)), photometric=2, extra=2),
        TWELVE,
        COLOURS >> 4,
    ),
}
"""Name -> what makes its bytes, the scale it is read at, and its pixels."""


def as_colours(pixels):
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)


@pytest.mark.parametrize("name", DEEP)
def test_deep_values_are_read_at_a_scale(name, tmp_path):
    make, scale, expected = DEEP[name]
    told = []
    np.testing.assert_array_equal(read(make(), tmp_path, scale, told.append), as_colours(expected))
    if "floating" in name or "says" in name or name == "TIFF of 12 bits":
        assert told == [], "its range is its own"
    else:
        assert scale_of(told) == scale, "its own extent tells the same scale"


def test_no_file_of_8_bits_has_an_extent(tmp_path):
    for name, make in FILES.items():
        read(make(), tmp_path, Scale(bits=8), lambda extent, name=name: pytest.fail(name))


def test_whole_numbers_become_8_bits_as_by_torchvision():
    from torchvision.transforms.v2.functional import to_dtype

    values = torch.arange(0, 2**31 - 1, 2**31 // 5000, dtype=torch.int32)
    theirs = to_dtype(values[None, None].repeat(3, 1, 1), torch.uint8, scale=True)[0, 0]
    assert torch.equal(theirs, torch.from_numpy(FULL.to_bytes((values >> 15).numpy().copy())))
    unit = torch.linspace(0, 1, 5001)
    theirs = to_dtype(unit[None, None].repeat(3, 1, 1), torch.uint8, scale=True)[0, 0]
    from tlbench.data.depth import _of_unit

    assert np.array_equal(theirs.numpy(), _of_unit(unit.numpy()))


@pytest.mark.parametrize(
    ("extents", "black", "bits"),
    [
        ([], 0, 16),
        ([(0, 0)], 0, 8),
        ([(0, 255)], 0, 8),
        ([(0, 256)], 0, 10),
        ([(3, 1023), (0, 7)], 0, 10),
        ([(0, 1024)], 0, 12),
        ([(0, 4095)], 0, 12),
        ([(0, 4096)], 0, 14),
        ([(0, 16383)], 0, 14),
        ([(0, 16384)], 0, 16),
        ([(0, 65535)], 0, 16),
        ([(-1024, 3071)], -1024, 12),
        ([(-1000, 2000)], -1024, 12),
        ([(-1000, 10), (-200, 3072)], -1024, 14),
        ([(-2000, 3071)], -2048, 14),
        ([(-128, 127)], -128, 8),
        ([(-1, 200)], -1, 8),
        ([(-32768, 32767)], -32768, 16),
        ([(-5, 10), (0, 65535)], -8, 17),
    ],
)
def test_the_least_depth_that_holds_the_values(extents, black, bits):
    scale = scale_of(Extent(*one) for one in extents)
    assert scale == Scale(black=black, bits=bits)
    for low, high in extents:
        assert not Extent(low, high).beyond(scale)


REFUSED = {
    "floating point beyond 1": (lambda: tiff(CT.astype(np.float32)), "go from -1024 to 3071, and only 0 to 1 have a"),
    "no number": (lambda: tiff(np.full((4, 4), np.nan, np.float32)), "go from nan to nan"),
    "infinite": (lambda: tiff(np.full((4, 4), np.inf, np.float32)), "go from inf to inf"),
    "32 bits": (lambda: tiff((RAMP * 1000).astype(np.int32)), "go from 0 to 4,095,000, and only -32,768 to 65,535"),
    "far below 0": (lambda: tiff((CT * 100).astype(np.int32)), "go from -102,400 to 307,100"),
    "32 bits without a sign": (lambda: tiff(np.full((4, 4), 2**32 - 1, np.uint32)), "to 4,294,967,295, and only"),
    "planes of 16 bits": (
        lambda: tiff(COLOURS.astype(np.uint16), photometric=2, planes=2),
        "its 16-bit colours lie in planes of their own, which are not read; save it with 8 bits",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_values_without_a_known_range_are_refused(case, tmp_path):
    make, words = REFUSED[case]
    with pytest.raises(ValueError) as error:
        read(make(), tmp_path)
    assert words in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("kind", ["premultiplied", "planes"])
def test_colours_that_cannot_be_read_whole_are_refused_only_where_they_must_be(kind, tmp_path):
    if kind == "planes":
        content = tiff(COLOURS.astype(np.uint16), photometric=2, planes=2, packed=True)
    else:
        content = tiff(stacked(*COLOURS.transpose(2, 0, 1), np.full(RAMP.shape, 65535)), photometric=2, extra=1)
    assert read(content, tmp_path).max() <= 15
    with pytest.raises(ValueError, match="are stored so that they cannot be read whole"):
        read(content, tmp_path, TWELVE)


# --- one scale a data set -------------------------------------------------------------------------------------


def scans(root, of_train, of_val=None, make=png, ending="png", count=3):
    """A folder of different scans, in two classes of train/ and val/, with the largest value of either."""
    for part, most in (("train", of_train), ("val", of_train if of_val is None else of_val)):
        for n, name in enumerate("ab"):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                values = np.random.default_rng(100 * n + 10 * i + (part == "val")).integers(0, most, (20, 20))
                values[0, 0] = most
                (root / part / name / f"{i}.{ending}").write_bytes(make(values))
    return root


def request(size=16, seed=0, **options):
    return Request(size=size, resize=size, interpolation="bilinear", seed=seed, **options)


def shown(root, scale, files="*/*/*.*", size=16):
    """What is expected of the files, in the order of the store."""
    pixels = []
    for file in sorted(root.glob(files)):
        with Image.open(file) as image:
            values = np.asarray(image).astype(np.int32)
        grey = np.clip(values - scale.black, 0, 2**scale.bits - 1) >> (scale.bits - 8)
        eight = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
        pixels.append(np.asarray(eight.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1))
    return np.stack(pixels)


def as_int16(values):
    return tiff((values - 1024).astype(np.int16))


SETS = {
    "8 bits": (200, None, png, Scale(bits=8), 0),
    "10 bits": (1000, None, png, Scale(bits=10), 0),
    "12 bits": (4000, None, png, TWELVE, 0),
    "14 bits": (4096, None, png, Scale(bits=14), 0),
    "16 bits": (65000, None, png, FULL, 0),
    "12 bits, and more to test on": (4000, 60000, png, TWELVE, 6),
    "12 bits, and less to test on": (4000, 200, png, TWELVE, 0),
    "TIFF": (4000, None, lambda values: tiff(values.astype(np.uint16)), TWELVE, 0),
    "CT": (4000, None, as_int16, Scale(black=-1024, bits=12), 0),
    "CT, and more to test on": (4095, 9000, as_int16, Scale(black=-1024, bits=12), 6),
}


@pytest.mark.parametrize("case", SETS)
def test_the_training_images_decide_the_scale_of_all(case, tmp_path):
    train, val, make, scale, beyond = SETS[case]
    scans(tmp_path, train, val, make, "png" if make is png else "tif")
    data = load_data(f"folder:{tmp_path}", request())
    assert data.pixel_range == {"black": scale.black, "white": scale.white, "images": 12, "beyond": beyond}
    np.testing.assert_array_equal(data.train.pixels, shown(tmp_path, scale))
    other = load_data(f"folder:{tmp_path}", request(seed=1))
    assert other.train.pixels is data.train.pixels, "whatever the seed"


def test_colours_have_the_scale_of_the_training_images_too(tmp_path):
    scans(tmp_path, 4000, 60000, make=lambda values: png(np.stack([values, values // 2, values // 3], -1)))
    data = load_data(f"folder:{tmp_path}", request(size=20))
    assert data.pixel_range == {"black": 0, "white": 4095, "images": 12, "beyond": 6}
    values = np.random.default_rng(0).integers(0, 4000, (20, 20))
    values[0, 0] = 4000
    expected = np.stack([values, values // 2, values // 3]) >> 4
    np.testing.assert_array_equal(data.train.pixels[0], expected)


def test_class_folders_alone_have_one_scale_for_every_seed(tmp_path):
    root = scans(tmp_path, 4000, count=5) / "train"
    (root / "a/more.png").write_bytes(png(np.full((20, 20), 5000)))
    ranges = [load_data(f"folder:{root}", request(seed=seed)).pixel_range for seed in range(4)]
    assert ranges == [{"black": 0, "white": 2**14 - 1, "images": 11, "beyond": 0}] * 4


def test_images_of_8_bits_beside_them_stay_as_they_are(tmp_path):
    scans(tmp_path, 4000)
    before = load_data(f"folder:{tmp_path}", request()).pixel_range
    picture(size=(20, 20)).save(tmp_path / "train/a/zz.png")
    data = load_data(f"folder:{tmp_path}", request(size=20))
    assert data.pixel_range == before
    np.testing.assert_array_equal(data.train.pixels[3], np.asarray(picture(size=(20, 20))).transpose(2, 0, 1))


def test_where_none_is_trained_on_the_others_decide(tmp_path):
    scans(tmp_path, 4000)
    for n, file in enumerate(sorted(tmp_path.glob("train/*/*.png"))):
        picture(seed=n).save(file)
    data = load_data(f"folder:{tmp_path}", request())
    assert data.pixel_range == {"black": 0, "white": 4095, "images": 6, "beyond": 0}


def test_an_ordinary_data_set_has_no_scale(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for n in range(4):
            picture(seed=n + 10 * (name == "b")).save(tmp_path / name / f"{n}.png")
    assert load_data(f"folder:{tmp_path}", request()).pixel_range == {}


def test_one_that_cannot_be_read_at_the_scale_is_a_bad_image(tmp_path):
    scans(tmp_path, 4000)
    values = np.full((20, 20), 300)
    content = tiff(stacked(values, values, values, np.full((20, 20), 65535)), photometric=2, extra=1)
    (tmp_path / "train/a/x.tif").write_bytes(content)
    with pytest.raises(UserError, match=r"1 of 13 images.*'train/a/x.tif': its 16-bit colours have fewer than 16 bits"):
        load_data(f"folder:{tmp_path}", request())
    assert len(load_data(f"folder:{tmp_path}", request(bad_images="skip")).dropped) == 1


def test_the_scale_is_lent_with_the_images(tmp_path, monkeypatch):
    scans(tmp_path, 4000)
    with lent.lending():
        data = load_data(f"folder:{tmp_path}", request())
    lent.accept({key: tuple(map(os.dup, loan)) for key, loan in store.loans().items()})
    KEPT.images.forget()
    monkeypatch.setattr("tlbench.data.folder._decode", None)
    assert load_data(f"folder:{tmp_path}", request()).pixel_range == data.pixel_range


LINE = "12 images of more than 8 bits read as 12 bits: black is 0, white is 4,095, which hold what is trained on"


def test_the_scale_is_said_before_the_run(tmp_path, command):
    """A dry run opens no image: it says what an earlier check has found in them."""
    scans(tmp_path / "scans", 4000, 60000)
    asked = ["--backbone=efficientnet_lite0", "--freeze=linear_probe"]
    begin(parse_asked({"dataset": f"folder:{tmp_path / 'scans'}", "backbone": "efficientnet_lite0"}))
    status, _, err = command("run", str(tmp_path / "scans"), *asked, "--dry-run")
    assert status == 0, err
    assert f"{LINE}; 6 that are not trained on go beyond, and are cut off there" in " ".join(err.split())


def test_the_scale_is_recorded_and_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("tlbench.report.plots.PLOTS", {})
    root = scans(tmp_path / "scans", 4000)
    findings = Findings()
    findings.building.data = load_data(f"folder:{root}", request())
    kept = findings.fields()["pixel_range"]
    assert kept == {"black": 0, "white": 4095, "images": 12, "beyond": 0}
    (read,) = [Record.from_dict(record(dataset="folder:scans", pixel_range=kept).to_dict())]
    write_report([read], tmp_path / "report")
    assert f"{LINE}." in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")


def test_words_for_one_image():
    said = in_words({"black": -1024, "white": 3071, "images": 1, "beyond": 1})
    assert said == (
        "1 image of more than 8 bits read as 12 bits: black is -1,024, white is 3,071, which hold what is trained on; "
        "1 that is not trained on goes beyond, and is cut off there"
    )
    assert in_words({}) == ""
