"""Corruptions of images: what the formulas say, and the same for the same image wherever and beside whatever it is."""

import colorsys
import hashlib
import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import tiny
from PIL import Image, ImageFilter

from tlbench.backbones.inputs import InputSpec
from tlbench.data import Split
from tlbench.data.corruptions import CORRUPTIONS, REFERENCE, STRENGTHS, corrupted, kind_of, names_of
from tlbench.machine.arithmetic import Arithmetic
from tlbench.train.corrupted import Corrupted
from tlbench.train.evaluate import evaluate
from tlbench.train.prefix import Feed

KINDS = list(CORRUPTIONS)
SIZE = 32


def pictures(count=7, size=SIZE, seed=0):
    """Smooth colours with some noise, as photographs have them: (count, 3, size, size)."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (count, 3, 4, 4)).repeat(size // 4, axis=2).repeat(size // 4, axis=3)
    return (coarse * 0.8 + draw.integers(0, 52, (count, 3, size, size))).clip(0, 255).astype(np.uint8)


def digest(images):
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()


# --- what the formulas say ------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", STRENGTHS)
def test_noise_has_the_spread_that_it_should(strength):
    grey = np.full((1, 3, 128, 128), 128, np.uint8)
    found = corrupted(grey, "noise", strength).astype(float) / 255
    spread = (0.08, 0.18, 0.38)[strength - 1]
    drawn = np.random.default_rng(0).normal(128 / 255, spread, 200_000).clip(0, 1)
    inside = (found > 0) & (found < 1)
    assert abs(found[inside].mean() - 128 / 255) < 0.02
    assert found.std() == pytest.approx(drawn.std(), rel=0.02)
    channels = found.reshape(3, -1)
    assert abs(np.corrcoef(channels)[0, 1]) < 0.03, "each channel has its own noise"


@pytest.mark.parametrize("strength", STRENGTHS)
def test_blur_is_pillows_in_proportion_to_the_size(strength):
    (image,) = pictures(1, size=64)
    radius = (1, 3, 6)[strength - 1] * 64 / REFERENCE
    expected = Image.fromarray(image.transpose(1, 2, 0)).filter(ImageFilter.GaussianBlur(radius))
    assert np.array_equal(corrupted(image[None], "blur", strength)[0], np.asarray(expected).transpose(2, 0, 1))


@pytest.mark.parametrize("strength", STRENGTHS)
def test_jpeg_is_written_and_read_again(strength):
    (image,) = pictures(1)
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=(25, 15, 7)[strength - 1])
    assert np.array_equal(corrupted(image[None], "jpeg", strength)[0].transpose(1, 2, 0), np.asarray(Image.open(file)))


@pytest.mark.parametrize("strength", STRENGTHS)
def test_brightness_raises_the_value_of_hsv_and_leaves_hue_and_saturation(strength):
    amount = (0.1, 0.3, 0.5)[strength - 1]
    colors = np.array([[0, 0, 0], [255, 255, 255], [200, 100, 50], [10, 20, 30], [0, 0, 255], [1, 0, 0]], np.uint8)
    found = corrupted(colors.T[None, :, :, None].repeat(6, axis=3), "brightness", strength)[0, :, :, 0].T
    for before, after in zip(colors, found, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255))
        expected = np.array(colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + amount))) * 255
        assert np.abs(after - expected).max() <= 0.51, (before, after, expected)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_contrast_draws_each_channel_to_its_mean(strength):
    (image,) = pictures(1)
    means = image.mean(axis=(1, 2), keepdims=True)
    expected = (image - means) * (0.4, 0.2, 0.05)[strength - 1] + means
    assert np.abs(corrupted(image[None], "contrast", strength)[0] - expected).max() <= 0.501


@pytest.mark.parametrize("kind", KINDS)
def test_each_strength_is_further_away(kind):
    images = pictures()
    away = [np.abs(corrupted(images, kind, s).astype(int) - images).mean() for s in STRENGTHS]
    assert away == sorted(away)
    assert len(set(away)) == 3


def test_names():
    assert names_of(["noise", "jpeg"]) == ["noise@1", "noise@2", "noise@3", "jpeg@1", "jpeg@2", "jpeg@3"]
    assert [kind_of(name) for name in ("noise@1", "noise", "phone")] == ["noise", "", ""]


# --- the same for the same image ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@given(st.randoms(use_true_random=False), st.integers(1, 4), st.integers(1, 5))
def test_in_any_order_batch_and_number_of_threads(kind, random, threads, batch):
    images = pictures(6)
    whole = corrupted(images, kind, 2)
    order = list(range(len(images)))
    random.shuffle(order)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        assert np.array_equal(corrupted(images[chosen], kind, 2, threads), whole[chosen])


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 12, 32]), st.sampled_from(STRENGTHS))
def test_of_any_image(kind, seed, size, strength):
    image = np.random.default_rng(seed).integers(0, 256, (1, 3, size, size), np.uint8)
    before = image.copy()
    found = corrupted(image, kind, strength)
    assert found.dtype == np.uint8
    assert found.shape == image.shape
    assert np.array_equal(image, before), "it was changed"
    assert np.array_equal(found, corrupted(np.ascontiguousarray(image[..., :]), kind, strength))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0, 255])
def test_of_black_and_white(kind, value):
    image = np.full((1, 3, SIZE, SIZE), value, np.uint8)
    for strength in STRENGTHS:
        assert corrupted(image, kind, strength).shape == image.shape


def test_a_view_of_other_strides_is_the_same_image():
    images = pictures(2)
    turned = images.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    for kind in KINDS:
        assert np.array_equal(corrupted(turned, kind, 3), corrupted(images, kind, 3))


def test_other_images_and_strengths_get_other_noise():
    images = pictures(2)
    images[1] = images[0]
    images[1, 0, 0, 0] ^= 1
    noise = [corrupted(images, "noise", s).astype(int) - images for s in (1, 2)]
    assert not np.array_equal(noise[0][0], noise[0][1])
    assert not np.array_equal(np.sign(noise[0][0]), np.sign(noise[1][0]))


def test_in_another_process():
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(__file__.rpartition('/')[0])!r})\n"
        "from test_corruptions import *\n"
        "print(*(digest(corrupted(pictures()[::-1], kind, s)[::-1]) for kind in KINDS for s in STRENGTHS))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [digest(corrupted(pictures(), kind, s)) for kind in KINDS for s in STRENGTHS]


# --- as an evaluation takes them ------------------------------------------------------------------------------

SPEC = InputSpec(size=SIZE, resize=SIZE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), interpolation="bilinear")
CPU = Arithmetic(device=torch.device("cpu"))


def split_of(images, order):
    return Split(pixels=images, positions=np.array(order, np.int64), classes=np.arange(len(order), dtype=np.int64) % 3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_sees_the_same_whatever_the_batch(kind):
    images = pictures(9)
    order = [4, 0, 8, 2, 6]
    split = split_of(images, order)
    source = Corrupted(Feed(split, SPEC, CPU), split, kind, 2)
    assert len(source) == 5
    expected = corrupted(images, kind, 2)[order]
    for batch in (1, 2, 5):
        parts = [source.raw(positions) for positions in torch.arange(5).split(batch)]
        assert np.array_equal(torch.cat([made for made, _ in parts]).numpy(), expected)
        assert torch.cat([labels for _, labels in parts]).tolist() == split.labels.tolist()
    assert source.stored(2, None) is None


def test_predictions_are_the_same_for_every_batch_size():
    images = pictures(9)
    split = split_of(images, list(range(9)))
    torch.manual_seed(0)
    model = tiny()
    source = Corrupted(Feed(split, SPEC, CPU), split, "noise", 1)
    found = [evaluate(model, source, batch).predictions.tolist() for batch in (1, 4, 9)]
    assert found[0] == found[1] == found[2]
