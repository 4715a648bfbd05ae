"""Downloads that are killed half way, and two at once: half a data set is never taken for the whole."""

import json
import time
from unittest import mock
from urllib.error import URLError

import pytest
from hosts import fetches, found, pack, put_by_hand
from survivors import begin

from tlbench.data import check_dataset
from tlbench.data.data_root import data_root
from tlbench.data.fetching import fetch
from tlbench.data.named import lacking, offers, parse, unpacked_with
from tlbench.data.unpacking import LOCK, half_there, mark_of, marked
from tlbench.errors import UserError

SETS = ("EuroSAT", "DTD", "FGVCAircraft", "Omniglot", "Country211")


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.01)


def message(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    text = str(caught.value)
    assert text.isprintable(), ascii(text)
    return text


def killed(text, folder, where):
    """A download that is killed half way."""
    process = begin(fetches, text, folder, where)
    wait_for(lambda: (folder / "half").exists() or not process.is_alive())
    process.kill()
    process.join()
    assert process.exitcode == -9, "it was half way"
    (folder / "half").unlink()


def here(text):
    name = f"torchvision:{parse(text).name}"
    return next(offer.here for offer in offers() if offer.name == name)


@pytest.mark.parametrize("where", ["unpack", "download"])
@pytest.mark.parametrize("text", SETS)
def test_what_was_killed_half_way_is_not_there_and_is_fetched_again(text, where, tmp_path):
    whole = pack(text, tmp_path)
    root = tmp_path / "root"
    killed(text, tmp_path, where)
    assert found(root) != whole
    with data_root(str(root)):
        assert not here(text)
        said = message(check_dataset, f"torchvision:{text}")
        for word in (f"torchvision:{text} in {str(root)!r} is not whole", "--download", mark_of(text)):
            assert word in said
        fetches(text, tmp_path)
        assert found(root) == whole, "and neither mark nor lock"
        check_dataset(f"torchvision:{text}")
        assert here(text)
    log = (tmp_path / "log").read_text()
    assert "again, since an earlier time did not end" in log
    fetches(text, tmp_path)
    assert (tmp_path / "log").read_text() == log, "what is whole is not asked for again"


@pytest.mark.parametrize("text", ["EuroSAT", "DTD", "Omniglot"])
def test_an_archive_that_a_person_put_there_outlives_a_kill(text, tmp_path):
    whole = pack(text, tmp_path)
    archive = put_by_hand(tmp_path, text)
    content = archive.read_bytes()
    if text != "Omniglot":  # which tlbench unpacks itself: torchvision does not
        killed(text, tmp_path, "unpack")
    fetches(text, tmp_path)
    assert found(tmp_path / "root") == whole
    assert archive.read_bytes() == content
    assert "downloads" not in (tmp_path / "log").read_text(), "no network is needed"


@pytest.mark.parametrize("text", ["EuroSAT", "Omniglot"])
def test_what_a_person_puts_there_after_a_kill_is_not_lost(text, tmp_path):
    """It was removed with what was half there, and without a network nothing was left: also the archive itself."""

    def without_a_network():
        with marked(root, parse(text).name, files, beside):
            assert not mine.exists()
            raise OSError("no network")

    pack(text, tmp_path)
    root = tmp_path / "root"
    killed(text, tmp_path, "download" if text == "Omniglot" else "unpack")
    archive = put_by_hand(tmp_path, text)
    content = archive.read_bytes()
    files, beside = unpacked_with(parse(text))
    mine = next(root / path / "mine.txt" for path in half_there(root, parse(text).name, files))
    if text != "Omniglot":
        mine.write_text("x")
    with pytest.raises(OSError, match="no network"):
        without_a_network()
    assert archive.read_bytes() == content
    assert mine.exists() == (text != "Omniglot")
    with data_root(str(root)):
        assert not here(text), "it is marked still"
    before = (tmp_path / "log").read_text().count(f"downloads {archive.name}")
    fetches(text, tmp_path)
    assert (tmp_path / "log").read_text().count(f"downloads {archive.name}") == before, "no network is needed"
    with data_root(str(root)):
        assert here(text)
    assert not [path for path in found(root) if path.startswith(".tlbench")]


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "is killed"])
def test_of_two_at_once_one_unpacks_and_the_other_waits(ends, tmp_path):
    whole = pack("EuroSAT", tmp_path)
    log = tmp_path / "log"
    first = begin(fetches, "EuroSAT", tmp_path, "unpack")
    wait_for((tmp_path / "half").exists)
    second = begin(fetches, "EuroSAT", tmp_path)
    wait_for(lambda: f"{second.pid} said torchvision:EuroSAT: waits for another process" in log.read_text())
    if ends:
        (tmp_path / "go").touch()
    else:
        first.kill()
    for process in (first, second):
        process.join(60)
    assert (first.exitcode, second.exitcode) == (0 if ends else -9, 0)
    assert found(tmp_path / "root") == whole
    unpacked = [line.split()[0] for line in log.read_text().splitlines() if "unpacks EuroSAT.zip" in line]
    assert [pid for pid in unpacked if pid == str(second.pid)] == ([] if ends else [str(second.pid)])


def test_what_a_person_put_there_has_no_mark_and_stays_accepted(tmp_path):
    whole = pack("EuroSAT", tmp_path)
    killed("EuroSAT", tmp_path, "unpack")
    (tmp_path / "root" / mark_of("EuroSAT")).unlink()
    with data_root(str(tmp_path / "root")):
        check_dataset("torchvision:EuroSAT")
        before = found(tmp_path / "root")
        fetches("EuroSAT", tmp_path)
        assert found(tmp_path / "root") == before != whole


def test_a_mark_is_of_what_was_not_there_before(tmp_path):
    """Of Imagenette one size does not say anything of another, of EMNIST's one archive each split does."""
    (tmp_path / "imagenette2" / "train").mkdir(parents=True)
    (tmp_path / "imagenette2" / "val").mkdir()
    small, full = parse("Imagenette(size=160px)"), parse("Imagenette")

    def half():
        with marked(tmp_path, "Imagenette", small.row.files(small.arguments), []):
            (tmp_path / "imagenette2-160" / "train").mkdir(parents=True)
            (tmp_path / "imagenette2-160" / "val").mkdir()
            (tmp_path / "imagenette2-160" / "val" / "x.JPEG").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert json.loads((tmp_path / mark_of("Imagenette")).read_text()) == ["imagenette2-160"]
    assert lacking(full, tmp_path) == []
    assert lacking(small, tmp_path) == ["imagenette2-160/train", "imagenette2-160/val"]
    with marked(tmp_path, "Imagenette", small.row.files(small.arguments), []):
        assert not (tmp_path / "imagenette2-160").exists(), "torchvision unpacks nothing where it finds the folder"
        assert (tmp_path / "imagenette2" / "val").exists()
    assert not (tmp_path / mark_of("Imagenette")).exists()
    files, archives = unpacked_with(parse("EMNIST(split=letters)"))
    assert len(files) == 24, "of all six splits"
    assert archives == ["EMNIST/raw/gzip.zip"]
    pieces = [f"{part}_32x32.mat" for part in ("train", "test", "extra")]
    assert unpacked_with(parse("SVHN(extra=true)")) == (pieces, pieces), "what is downloaded stays: it has a hash"


def test_a_mark_that_cannot_be_read_is_a_mark_and_reaches_nothing_else(tmp_path):
    files = ["dtd/dtd/images", "dtd/dtd/labels/train1.txt"]
    (tmp_path / mark_of("DTD")).write_text("")
    assert half_there(tmp_path, "DTD", files) == ["dtd"]
    (tmp_path / mark_of("DTD")).write_text('["..", "", ".", "/", "other", "dtd/dtd/images/../../../other"]')
    assert half_there(tmp_path, "DTD", files) == []


def test_where_a_mark_cannot_be_read_nothing_is_removed(tmp_path):
    """Nothing tells what of it a download has made, and what a person."""
    mine = tmp_path / "dtd" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("x")
    (tmp_path / mark_of("DTD")).write_text("")
    with data_root(str(tmp_path)):
        said = message(fetch, ["torchvision:DTD"], lambda line: None)
    assert f"'{mark_of('DTD')}' there cannot be read; remove it with what is there" in said
    assert mine.exists()


def test_without_a_network_nothing_is_marked(tmp_path):
    def fails(*arguments, **options):
        raise URLError("no route to host")

    root = tmp_path / "root"
    with mock.patch("torchvision.datasets.utils._get_redirect_url", fails), data_root(str(root)):
        assert "no route to host" in message(fetch, ["torchvision:DTD"], lambda line: None)
        assert found(root) == []
        assert "'dtd/dtd/images' is missing" in message(check_dataset, "torchvision:DTD")


def test_a_root_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with data_root(str(tmp_path / "file" / "root")):
        said = message(fetch, ["torchvision:DTD"], lambda line: None)
    assert said.startswith(f"{str(tmp_path / 'file' / 'root')!r} cannot be written to: ")
    assert LOCK not in said
