"""What is too large, or written in another way: read where it is meant, else refused in one line before it costs."""

import threading
import time

import pytest
from conftest import save_image
from PIL import Image

from tlbench.campaign.check import check
from tlbench.campaign.steps import steps
from tlbench.data import Request, decoding, folder, load_data
from tlbench.data.budget import PIXEL_BYTES, SHARE, Budget
from tlbench.data.decode import own_limit, read_image
from tlbench.errors import UserError
from tlbench.grid.axes import parse_axis
from tlbench.grid.grid import MOST_CELLS, Grid, load_grid
from tlbench.grid.settings import Settings, parse_settings
from tlbench.grid.values import join_values
from tlbench.records.plan import Plan


def refusal(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    return str(caught.value)


def grid(tmp_path, content) -> Grid:
    path = tmp_path / "grid.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_grid(path)


# --- grid files and numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_files_of_windows_editors_are_read(tmp_path, before, end):
    content = end.join([before + b'backbone = "resnet18"', b"batch-size = 8"])
    assert grid(tmp_path, content).axes["batch_size"] == (8,)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("batch-size = 8\nbatch_size = 16", "twice"),
        ("image_size = 32\nimage-size = 32", "twice"),
        (f"seeds = {'9' * 5000}", "not TOML"),
        (f"seeds = {'9' * 4000}", "4,000 characters"),
        (f"seeds = 0x{'f' * 20000}", "thousands of digits"),
        (f"lr = {'9' * 4000}", "4,000 characters"),
        (f"lr = 0x{'f' * 20000}", "thousands of digits"),
        (f"warmup = 1e{'9' * 300}", "not a number from 0 to 1"),
        ("lr = 0", "above 0"),
        ("lr = 0.0", "above 0"),
        ("lr = -0.0", "above 0"),
        ("lr = nan", "above 0"),
        ("backbone_lr = 0", "above 0"),
        ("epochs = 2000000000", "1,000,000"),
        ("image-size = 2000000000", "8,192"),
        (f"seeds = {[10**30]}", "a whole number"),
        (b"\xff\xfeb\x00", "not TOML"),
    ],
    ids=lambda value: str(value[:24]),
)
def test_a_grid_file_is_refused_in_one_line(tmp_path, content, words):
    assert words in refusal(grid, tmp_path, content)


@pytest.mark.parametrize("text", ["0,001", "0,01", "0,5", "0, 003", "0"])
@pytest.mark.parametrize("name", ["lr", "backbone_lr"])
def test_a_decimal_comma_is_no_rate_of_zero(name, text):
    assert "decimals are written with a point, 0.001" in refusal(parse_axis, name, text)


@pytest.mark.parametrize("text", ["1,001", "0.1,01", "1,05"])
def test_what_is_left_of_a_decimal_comma_is_no_number(text):
    for name in ("lr", "weight_decay"):
        assert "with a point" in refusal(parse_axis, name, text)


@pytest.mark.parametrize(
    "pattern", [r"\((p?\d+)\)", r"\w+ \((\w+)", r"(a|b)\\", r"(\w,\d)", r"(a\),b)", r"[(](\d+)", r"([^]),]+)"]
)
def test_a_regular_expression_of_groups_is_taken_as_it_is_written(pattern):
    r"""`\(` became `(`, and groups leaked."""
    name = f"folder:photos?group={pattern}"
    assert parse_axis("dataset", name) == (name,)
    several = (name, "digits", f"{name}&root=a(b", f"list:a(b,c?root=x)y&group={pattern}", name)
    assert parse_axis("dataset", join_values(several)) == several
    assert parse_axis("dataset", rf"list:x.csv?group={pattern}&root=fotos\(a") == (
        f"list:x.csv?group={pattern}&root=fotos(a",
    )


@pytest.mark.parametrize("name", ["weight_decay", "warmup", "label_smoothing", "bn_momentum"])
def test_a_decimal_comma_is_not_two_values_in_silence(name):
    said = refusal(parse_axis, name, "0,1")
    assert "would be two values, 0 and 1; write 0.1 for one, or 0.0,1.0 for both" in said
    assert parse_axis(name, "0.0,1.0") == parse_axis(name, [0, 1]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("lr", "0.001,auto", (0.001, "auto")),
        ("lr", "1e-3,1", (0.001, 1.0)),
        ("weight_decay", "0,0.01", (0.0, 0.01)),
        ("warmup", "0,.1", (0.0, 0.1)),
        ("label_smoothing", "0", (0.0,)),
        ("bn_momentum", "0,keep", (0.0, "keep")),
        ("seed", "0-1999", tuple(range(2000))),
    ],
)
def test_numbers_are_read(name, text, values):
    assert parse_axis(name, text) == values


@pytest.mark.parametrize("name", ["threads", "blocks", "views"])
def test_settings_are_refused_in_one_line(name):
    assert name in refusal(parse_settings, {name: "9" * 4000})
    assert name in refusal(parse_settings, {name: "9" * 5000})


# --- grids ----------------------------------------------------------------------------------------------------

SYNTHETIC = {"dataset": ("synthetic",), "weights": ("random",), "backbone": ("mobilenet_v3_small",)}


@pytest.mark.parametrize(
    ("axes", "blocks"),
    [
        ({}, 2**31),
        ({"seed": tuple(range(MOST_CELLS // 2))}, 3),
        ({"seed": tuple(range(4000)), "lr": tuple(1 + n / 3000 for n in range(3000))}, 1),
        ({"task": ("infer",), "seed": tuple(range(4000)), "lr": tuple(1 + n / 3000 for n in range(3000))}, 1),
    ],
    ids=["blocks", "seeds", "product", "inference"],
)
def test_a_grid_too_large_is_refused_before_it_is_made(axes, blocks):
    given = Grid(axes={**SYNTHETIC, **axes})
    began = time.process_time()
    assert "more than 10,000,000" in refusal(check, given, Settings(blocks=blocks))
    assert time.process_time() - began < 2


def as_slow() -> float:
    """Returns how many times as long as the machine that the ten seconds are of this one needs for 5 million squares,
    at least 1.
    """
    began = time.process_time()
    sum(number * number for number in range(5_000_000))
    return max(1.0, (time.process_time() - began) / 0.35)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["synthetic", "folder"])
def test_fifty_thousand_seeds_are_checked_in_ten_seconds(kind, tmp_path):
    """Of a folder each was split by itself, and all of it kept."""
    before = as_slow()
    said = []
    axes = SYNTHETIC
    if kind == "folder":
        for number in range(12):
            save_image(tmp_path / "photos" / "ab"[number % 2] / f"{number}.png", 60 * (number % 2), seed=number)
        axes = {**SYNTHETIC, "dataset": (f"folder:{tmp_path / 'photos'}",)}
    began = time.process_time()
    checked = check(Grid(axes={**axes, "seed": tuple(range(50_000))}), Settings(), said.append)
    planned = steps(Plan(grids=(checked,), settings=Settings()))
    seconds = time.process_time() - began
    assert len(planned) == 50_000
    assert seconds / ((before + as_slow()) / 2) < 10
    assert any("looked at the first 200 of 50,000 ways to split it" in line for line in said) == (kind == "folder")


def test_a_value_given_twice_is_named_among_many():
    seeds = (*range(50_000), 49_999)
    assert "'49999' twice" in refusal(lambda: Grid(axes={"seed": seeds}))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--classes", "2000000000"),
        ("--classes", "9" * 40),
        ("--image-size", "2000000000"),
        ("--batch-size", "9" * 40),
        ("--epochs", "2000000000"),
    ],
)
def test_show_refuses_huge_numbers_in_one_line(command, option, value):
    status, out, err = command("show", "resnet18", option, value)
    assert (status, out) == (2, "")
    assert err.startswith(f"tlbench: {option}: {value} is too large; give at most")
    assert err.count("\n") == 1


def test_run_refuses_a_huge_image_in_one_line(command):
    status, out, err = command("run", "--image-size", "2000000000")
    assert (status, out) == (2, "")
    assert "from 8 to 8,192" in err
    assert err.count("\n") == 1


# --- images ---------------------------------------------------------------------------------------------------


def test_a_photograph_of_108_megapixels_is_read_whatever_pil_thinks(tmp_path, monkeypatch):
    assert Image.MAX_IMAGE_PIXELS < 108_000_000
    path = tmp_path / "large.png"
    Image.new("L", (1200, 900), 90).save(path)
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 900 * 1200 // 3
    )  # PIL refuses twice as many, which this is more than
    asked = []
    with own_limit():
        assert read_image(path, lambda *size: asked.append(size)).size == (1200, 900)
    assert asked == [(1200, 900)]
    assert Image.MAX_IMAGE_PIXELS == 900 * 1200 // 3


def test_threads_decode_at_the_same_time_as_far_as_there_is_memory():
    large = 90_000_000
    budget = Budget(free=int(2.5 * large * PIXEL_BYTES / SHARE))
    at_once, most, lock = 0, 0, threading.Lock()

    def decode():
        nonlocal at_once, most
        with budget.room() as take:
            take(large)
            with lock:
                at_once += 1
                most = max(most, at_once)
            time.sleep(0.02)
            with lock:
                at_once -= 1

    threads = [threading.Thread(target=decode) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert most == 2
    assert budget._taken == 0


def test_one_image_is_decoded_however_small_its_share_but_not_beyond_all_memory():
    budget = Budget(free=1000 * PIXEL_BYTES)
    for pixels in (1000, 900):
        with budget.room() as take:
            take(pixels)
    with pytest.raises(ValueError, match="are free"), budget.room() as take:
        take(1001)
    assert budget._taken == 0


@pytest.mark.parametrize(
    ("width", "height", "pixels"),
    [(40, 32, 40 * 32), (9459, 9459, 9459**2), (1, 1000, 224**2 * 1000), (3, 7, 224**2 * 7 // 3)],
)
def test_room_is_taken_for_what_an_image_becomes(width, height, pixels):
    asked = []
    decoding.take_room(asked.append, 224 if width < 32 else 32, width, height)
    assert asked == [pixels]


def test_a_folder_is_decoded_within_the_budget(photos, monkeypatch):
    at_once, most, lock, whole = 0, 0, threading.Lock(), decoding.fit

    def slow(*arguments):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.005)
        with lock:
            at_once -= 1
        return whole(*arguments)

    free = int(1.5 * 40 * 32 * PIXEL_BYTES / SHARE)
    monkeypatch.setattr(decoding, "Budget", lambda: Budget(free))
    monkeypatch.setattr(folder, "workers", lambda: 8)
    monkeypatch.setattr(decoding, "fit", slow)
    request = Request(size=16, resize=16, interpolation="bilinear", seed=0)
    assert len(load_data(f"folder:{photos}", request).train) > 0
    assert most == 1
