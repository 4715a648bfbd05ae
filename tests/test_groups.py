"""Groups that a person names: images of one patient, shop or visit stay in one split, copies with them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layouts import AB, lay_out, load, refusal, two

from tlbench.data import Request, describe_data, load_data
from tlbench.data.copies import together
from tlbench.data.folder import load as load_images
from tlbench.data.groups import by_pattern, joined
from tlbench.data.scan import scan
from tlbench.data.splits import HELD_OUT, OWN, divide
from tlbench.machine.kept import KEPT


@pytest.fixture(autouse=True)
def nothing_kept():
    KEPT.images.forget()
    yield
    KEPT.images.forget()


SHARES = {"val": HELD_OUT, "test": HELD_OUT}


def shops(count=12, each=4, classes=("a", "b")):
    """Photographs of each class in each shop."""
    return {f"{name}/shop{shop:02}_{n}.png": "image" for name in classes for shop in range(count) for n in range(each)}


def with_groups(root, pattern, seed=0, kind="folder"):
    return load_data(f"{kind}:{root}?group={pattern}", Request(size=8, resize=8, interpolation="bilinear", seed=seed))


def shops_of(data, part):
    return {data.files[position].split("/")[1][:6] for position in getattr(data, part).index.tolist()}


def test_images_of_one_group_are_in_one_split(tmp_path):
    lay_out(tmp_path / "x", shops())
    for seed in range(5):
        data = with_groups(tmp_path / "x", r"(shop\d+)", seed)
        found = [shops_of(data, part) for part in ("train", "val", "test")]
        assert sum(map(len, found)) == 12
        assert len(set.union(*found)) == 12
        assert all(found)
    alone = [shops_of(load(tmp_path / "x"), part) for part in ("train", "val", "test")]
    assert sum(map(len, alone)) > 12, "without groups they are torn"


def test_groups_are_known_without_decoding_and_of_other_groups_nothing_is_decoded_anew(tmp_path, monkeypatch):
    lay_out(tmp_path / "x", shops())
    first = with_groups(tmp_path / "x", r"shop\d(\d)")
    from tlbench.data import folder

    monkeypatch.setattr(folder, "read_image", None)
    other = with_groups(tmp_path / "x", r"(shop\d+)")
    assert other.train.pixels is first.train.pixels
    assert other.images_sha256 == first.images_sha256
    assert other.sha256 != first.sha256
    KEPT.images.forget()
    request = Request(size=8, resize=8, interpolation="bilinear", seed=0)
    described = describe_data(f"folder:{tmp_path / 'x'}?group=(shop\\d+)", request)
    assert described.sha256 == other.sha256
    assert described.files == other.files


def test_a_val_is_cut_from_train_by_groups_and_test_is_as_it_is(tmp_path):
    tree = {f"train/{name}": what for name, what in shops().items()}
    lay_out(tmp_path / "x", tree | {f"test/{name}": what for name, what in shops(2).items()})
    data = with_groups(tmp_path / "x", r"(shop\d+)")
    train, val = (
        {data.files[p].split("/")[2][:6] for p in getattr(data, part).index.tolist()} for part in ("train", "val")
    )
    assert not train & val
    assert len(train | val) == 12
    scanned = scan(f"{tmp_path / 'x'}?group=(shop\\d+)")
    assert scanned.how_split.endswith(
        r"; images of one group stay in one split (12 groups, by '(shop\d+)' in the path)"
    )
    across = [line for line in scanned.remarks if "groups have images in more than one split" in line]
    assert across == [
        "2 of 12 groups have images in more than one split, such as 'shop00' in train/ and test/: what is tested on is "
        "not apart from what is trained on"
    ]


def test_where_all_splits_are_given_groups_are_compared_alone(tmp_path):
    lay_out(
        tmp_path / "x", {f"{part}/{name}": what for part in ("train", "val", "test") for name, what in shops(2).items()}
    )
    scanned = scan(f"{tmp_path / 'x'}?group=(shop\\d+)")
    assert scanned.how_split == "train/, val/ and test/ as they are in the folder"
    assert scanned.remarks[-1].startswith("2 of 2 groups have images in more than one split")


def test_copies_join_groups(tmp_path):
    lay_out(tmp_path / "x", shops())
    copied = (tmp_path / "x/a/shop00_0.png").read_bytes()
    (tmp_path / "x/a/shop07_9.png").write_bytes(copied)
    for seed in range(5):
        data = with_groups(tmp_path / "x", r"(shop\d+)", seed)
        parts = {part for part in ("train", "val", "test") if shops_of(data, part) & {"shop00", "shop07"}}
        assert len(parts) == 1
        assert data.copies["groups"] == 1, "a group is no copy"
        assert data.leaked == {"val": (), "test": ()}


def test_a_group_is_found_in_the_path_and_may_be_over_classes(tmp_path):
    lay_out(tmp_path, {f"{name}/p{n}/0.png": "image" for name in "ab" for n in range(9)})
    assert scan(f"{tmp_path}?group=/(p\\d)/").groups == tuple(f"p{n}" for n in range(9)) * 2
    assert scan(f"{tmp_path}?group=^[^/]+/(.*)/").groups == tuple(f"p{n}" for n in range(9)) * 2
    assert scan(f"{tmp_path}?group=(?:p)(\\d)").groups == tuple("012345678") * 2


def test_a_column_of_a_list(tmp_path):
    lay_out(tmp_path, shops())
    rows = [f"{name},{name[0]},{name.split('_')[0][2:]},x\n" for name in shops()]
    (tmp_path / "x.csv").write_text("path,label,group,patient\n" + "".join(rows))
    by_column = load_data(f"list:{tmp_path / 'x.csv'}", Request(size=8, resize=8, interpolation="bilinear", seed=3))
    by_path = with_groups(tmp_path, r"/(shop\d+)", 3)
    for part in ("train", "val", "test"):
        assert shops_of(by_column, part) == shops_of(by_path, part)
    from tlbench.data.lists import scan_list

    scanned = scan_list(f"{tmp_path / 'x.csv'}")
    assert scanned.how_split.endswith("stay in one split (12 groups, by column 'group')")
    assert set(scan_list(f"{tmp_path / 'x.csv'}?group_column=patient").groups) == {"x"}
    assert set(scan_list(f"{tmp_path / 'x.csv'}?group=(shop\\d)").groups) == {"shop0", "shop1"}
    (tmp_path / "y.csv").write_text("path,label,group\n" + f"a/shop00_0.png,a,\n{rows[1][:-2]}")
    assert "line 2: no group for 'a/shop00_0.png'" in refusal(scan_list, f"{tmp_path / 'y.csv'}")


BAD = {
    "no regular expression": ("(shop", ["group '(shop' is no regular expression: ", "?group=(patient"]),
    "no parentheses": ("shop", ["group 'shop' has no parentheses", "write ?group=(shop)"]),
    "other parentheses": ("(?:shop)", ["has no parentheses"]),
    "found in no file": ("(ward)", ["finds none in 8 images of 8 in ", "'a/0.png', 'a/1.png', 'a/2.png', …"]),
    "found in some": ("([0-2]).png", ["finds none in 2 images of 8 in ", "'a/3.png', 'b/3.png'"]),
    "found empty": ("(x*)", ["finds none in 8 images of 8"]),
    "one for all": (
        "(png)",
        ["class 'a' cannot be divided: its 4 images are of 1 group", "add images of other groups"],
    ),
    "one for each class": ("^(.)/", ["class 'a' cannot be divided: its 4 images are of 1 group, which stay together"]),
}


@pytest.mark.parametrize("case", BAD)
def test_groups_are_refused_in_one_line(case, tmp_path):
    pattern, words = BAD[case]
    lay_out(tmp_path / "x", AB)
    text = refusal(with_groups, tmp_path / "x", pattern)
    for word in words:
        assert word in text


def test_an_unknown_option_of_a_folder(tmp_path):
    lay_out(tmp_path, two("train") | two("val"))
    assert "unknown option of folder:PATH 'groups'; did you mean 'group'?" in refusal(load, f"{tmp_path}?groups=(a)")
    assert "unknown value of classes 'leafs'; did you mean 'leaf'?" in refusal(load, f"{tmp_path}?classes=leafs")


# --- how names join -------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("ABCDEFG")), min_size=1, max_size=30))
@settings(max_examples=200)
def test_what_shares_a_copy_or_a_group_is_together_and_nothing_else(pairs):
    copies, own = [copy.encode() for copy, _ in pairs], [group for _, group in pairs]
    names = joined(copies, own)
    # The plain way: flood from each image.
    for begin in range(len(pairs)):
        reached, left = {begin}, [begin]
        while left:
            one = left.pop()
            for other in range(len(pairs)):
                if other not in reached and (copies[one] == copies[other] or own[one] == own[other]):
                    reached.add(other)
                    left.append(other)
        assert {place for place, name in enumerate(names) if name == names[begin]} == reached
    assert {len(name) for name in names} == {32}
    assert all(name.startswith(OWN) for name in names)


@given(st.integers(3, 40), st.integers(0, 5), st.data())
@settings(max_examples=50, deadline=None)
def test_images_that_are_added_move_no_group(count, seed, data):
    """Those of a class whose every part has a group already."""

    def parts(groups):
        names = joined([str(place).encode() for place in range(len(groups))], groups)
        found = divide(range(len(groups)), [0] * len(groups), ["a"], SHARES, seed, names)
        return {part: {groups[place] for place in places} for part, places in found.items()}

    everything = parts([f"g{number}" for number in range(400)])
    own = [f"g{number}" for number in range(count) for _ in range(2)]
    if not all(everything[part] & set(own) for part in everything):
        return  # one of them is moved for the sake of a part without any, and may stay later
    before = parts(own)
    after = parts([*own, *data.draw(st.lists(st.sampled_from(["g0", "g1", "new1", "new2"]), max_size=6))])
    assert all(before[part] <= after[part] for part in before)


def test_without_groups_images_stay_with_their_copies_alone(tmp_path):
    lay_out(tmp_path, AB)
    request = Request(size=8, resize=8, interpolation="bilinear", seed=0, path=str(tmp_path))
    images, _ = load_images(request)
    assert images.together == ()
    assert together(images) is images.groups


def test_a_pattern_takes_the_first_parentheses():
    assert by_pattern(r"(\d)(\d)", ["12", "34"], "x") == ("1", "3")
