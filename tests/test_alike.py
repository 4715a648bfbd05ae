"""Lines that are read in pieces, as all of a file are: each says what it says by itself, and is refused where it is
refused by itself.
"""

import importlib.util
import io
import json
import random
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from damage import damage
from records import example_run, record

from tlbench.grid.settings import Settings
from tlbench.records import alike, lines, strict_json
from tlbench.records.lines import decode, encode, read, seal

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = sorted((ROOT / "results" / "published").glob("*/records.jsonl"))
ENVIRONMENT = {
    "stable": {"os": "Linux", "cpu_count": 2, "torch": "2.11.0", "ü": "\u2028\udcff"},
    "settings": {"threads": 2, "variables": {}},
    "arithmetic": {"tf32_matmul": False},
    "volatile": {
        "before": {"load_1min": 0.5, "locked": None},
        "after": {"load_1min": 1e-5, "gpu_clocks_locked": True},
    },
}
STAGES = tuple({"name": f"stage {n}", "parameters": n, "flops": 2.5 * n, "shape": [64, n]} for n in range(3))
WHOLE = record(
    stages=STAGES, environment=ENVIRONMENT, detail={"forward": 0.5}, copies={"exact": 0}, lr=1e-5, cut="head",
    prefix={"seconds": 1.5, "images": 10, "fills": ["a"]}, flops={"forward": 1e9, "train_step": {"full": 3}},
    lr_trials=({"lr": 0.1, "accuracy": 0.5},), images={"test": "a.npz"}, other_tests={"phone": {"accuracy": 0.5}},
    reason='a\n"b" \\ ü 🐈 "checksum":"x","rounds":[', plugins={"p.py": "0" * 64}, machine_noise={"pairs": 2},
    predictions_sha256="ab" * 32, shares_node=True, engine="ray", scaled_images=3,
)  # fmt: skip
"""A record that says something in every piece of its line."""


def by_itself(line):
    """The record of a line as text, or what is wrong with it."""
    try:
        return repr(decode(line))
    except ValueError as error:
        return str(error)


def together(*written):
    """The same of each line of a file."""
    loaded = read("".join(f"{line}\n" for line in written).encode("utf-8"), "x")
    wrong = {int(told.split(":")[1]): told.split(": ", 1)[1] for told in loaded.damaged}
    found = iter(map(repr, loaded.records))
    return [wrong[n] if n in wrong else next(found) for n in range(1, len(written) + 1)]


# --- the same records -----------------------------------------------------------------------------------------


def published(path):
    return path.read_text(encoding="ascii").splitlines()


def made_up():
    spec = importlib.util.spec_from_file_location("bench_load", ROOT / "bench" / "load.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [line.strip() for line in module.lines_of(12, 2, 2)]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_published_records_are_what_each_line_says(path):
    written = published(path)
    assert together(*written, *written) == [by_itself(line) for line in written] * 2


def test_made_up_records_are_what_each_line_says():
    written = made_up()
    assert together(*written) == [by_itself(line) for line in written]


def test_a_line_of_this_version_is_read_in_pieces(monkeypatch):
    """Also the first one; nothing parses it as a whole."""
    monkeypatch.setattr(lines, "unseal", None)
    runs = [[WHOLE], example_run(policies=("linear_probe", "norm"), seeds=(0,))]
    written = [*(encode(one).strip() for run in runs for one in run), *made_up()]
    assert len(read("\n".join([*written, ""]).encode(), "x").records) == len(written)


def test_published_lines_are_read_in_pieces(monkeypatch):
    monkeypatch.setattr(lines, "unseal", None)
    for path in PUBLISHED:
        assert len(read(path.read_bytes(), "x").records) == len(published(path))


def without(*names):
    return lambda data: {name: value for name, value in data.items() if name not in names}


def also(after, **more):
    """Fields of a later version, put behind another one."""

    def change(data):
        found = {}
        for name, value in data.items():
            found[name] = value
            found |= more if name == after else {}
        return found

    return change


OTHER_FIELDS = {
    "as it is": lambda data: data,
    "in another order": lambda data: dict(reversed(data.items())),
    "in the order of the alphabet": lambda data: dict(sorted(data.items())),
    "the environment first": lambda data: {"environment": data["environment"], **data},
    "no environment": without("environment"),
    "an environment of what changes alone": lambda d: {**d, "environment": {"volatile": ENVIRONMENT["volatile"]}},
    "nothing that changes": lambda d: {**d, "environment": {"stable": {"volatile": {"x": 1}}}},
    "what changes stands first": lambda d: {**d, "environment": dict(reversed(ENVIRONMENT.items()))},
    "what changes stands before more": lambda d: {**d, "environment": {**ENVIRONMENT, "zones": {"volatile": 1}}},
    "what changes is nothing": lambda d: {**d, "environment": {**ENVIRONMENT, "volatile": None}},
    "what changes is a number": lambda d: {**d, "environment": {**ENVIRONMENT, "volatile": 1}},
    "no settings": without("settings"),
    "no status": without("status"),
    "no cell": without("cell"),
    "no key": without("key"),
    "no schema": without("schema"),
    **{f"an older line, without {name}": without(name) for name in alike.CUTS if name not in ("schema", "volatile")},
    **{f"a field after {name}": also(name, later={"block": 1}) for name in ("id", "started", "weights", "rounds")},
    **{f"a field after {name}": also(name, volatile={"a": 1}) for name in ("environment", "detail", "definitions")},
    "names of pieces deeper down": lambda d: {**d, "prefix": {"a": 0, **dict.fromkeys(alike.CUTS, 1)}},
    "names of pieces in the cell": lambda d: {**d, "cell": {**d["cell"], "settings": 1, "status": {"started": 0}}},
    "names of pieces in rounds": lambda d: {**d, "rounds": [{**d["rounds"][0], "block": 1, "layout": {"prefix": 2}}]},
    "names of pieces in what changes": lambda d: {
        **d, "environment": {**ENVIRONMENT, "volatile": {"a": 1, "plugins": {"images": 1, "key": 2}}},
    },
    "a newer schema": lambda d: {**d, "schema": 99},
    "no whole number for the schema": lambda d: {**d, "schema": 1.5},
    "text for a time": lambda d: {**d, "wall_seconds": "1"},
    "true for a block": lambda d: {**d, "block": True},
    "an unknown status": lambda d: {**d, "status": "fine"},
    "a cut that is no text": lambda d: {**d, "cut": 5},
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER_FIELDS)
def test_lines_of_other_versions_say_what_each_says_by_itself(case):
    plain = encode(WHOLE).strip()
    other = seal(OTHER_FIELDS[case](WHOLE.to_dict())).strip()
    written = [plain, other, plain, other, other]
    assert together(*written) == [by_itself(line) for line in written]
    assert together(other, plain) == [by_itself(other), by_itself(plain)]


def test_what_a_later_record_says_otherwise_is_its_own():
    """Values that are equal to Python, and are not the same."""
    written = [
        encode(replace(WHOLE, recipe={"lr": value}, weights={"a": value}, stages=({"x": value},))).strip()
        for value in (1, 1.0, True, 0, 0.0, -0.0, False, 1, -0.0)
    ]
    assert together(*written) == [by_itself(line) for line in written]


def at(seed, **given):
    """A record of the cell at a seed, which its id says at the end."""
    cell = replace(WHOLE.cell, seed=seed)
    return replace(WHOLE, **{"id": cell.id, "cell": cell, **given})


def test_of_a_cell_with_a_third_seed_nothing_is_parsed_strictly(monkeypatch):
    written = [encode(at(seed)).strip() for seed in (0, 1, 17, 123_456, 2, 17)]
    expected = [by_itself(line) for line in written]
    reader = alike.Alike()
    found = [repr(reader.record(line, lines._checked)) for line in written[:2]]
    monkeypatch.setattr(strict_json, "loads", None)
    last = [reader.record(line, lines._checked) for line in written[2:]]
    assert [*found, *map(repr, last)] == expected
    assert last[0].cell is last[3].cell


SEEDS = {
    "below 0": [at(seed) for seed in (-1, -2, 1, -1)],
    "large": [at(seed) for seed in (2**63, 2**63 + 1, 10**30, 3)],
    "in a name": [at(seed, id=f"A/A x-s{seed}") for seed in (1, 2, 3)],
    "not in the id": [at(seed, id="x") for seed in (1, 2, 3)],
    "another one in the id": [at(seed, id="x-s7") for seed in (6, 7, 8, 7)],
    "in other fields as well": [
        replace(one, cell=replace(one.cell, dataset=f'folder:-s{one.cell.seed}","cell":{{,"seed":{one.cell.seed},'))
        for one in map(at, (1, 2, 3, 1))
    ],
    "what changes with it is more": [
        replace(one, cell=replace(one.cell, split_seed=one.cell.seed)) for one in map(at, (1, 2, 3, 4))
    ],
    "of several cells in turns": [
        replace(one, cell=replace(one.cell, lr=lr)) for one in map(at, (1, 2, 3)) for lr in (1, 1.0, 0.0, -0.0)
    ],
}


@pytest.mark.parametrize("case", SEEDS)
def test_what_follows_from_other_seeds_is_what_each_line_says(case):
    written = [encode(one).strip() for one in SEEDS[case]]
    assert together(*written) == [by_itself(line) for line in written]
    assert together(*reversed(written)) == [by_itself(line) for line in reversed(written)]


@pytest.mark.parametrize("numbers", [(1, 2, 3, 2), (1, 7, 3, 1), (7, 1, 3, 7)])
def test_what_looks_like_the_seed_of_a_cell_and_is_none_is_no_seed(numbers):
    """Of a later version, whose cells say more."""
    written = []
    for number in numbers:
        data = at(7, id=f"x-s{number}").to_dict()
        data["cell"] = {"task": "train", "later": {"a": 1, "seed": number, "b": 2}, **data["cell"]}
        written.append(seal(data).strip())
    assert together(*written) == [by_itself(line) for line in written]
    assert [one.cell.seed for one in read("\n".join([*written, ""]).encode(), "x").records] == [7] * 4


@pytest.mark.parametrize("seed", ["03", "3.0", "3e0", "-3", "true", "٣", "1" * 20, "", '"3"', "null"])
def test_a_seed_that_is_written_in_another_way_is_read_as_it_is_by_itself(seed):
    data = at(3).to_dict()
    text = (
        plainly(data).replace('"seed":3,', f'"seed":{seed},').replace('-s3"', f'-s{seed}"' if seed[:1] != '"' else "x")
    )
    said = {**data, "id": f"{data['id'][:-1]}{seed}", "cell": {**data["cell"], "seed": 3}}
    line = forged(text, said, "of its bytes")
    written = [*(encode(at(number)).strip() for number in (1, 2, 3)), line]
    assert together(*written) == [by_itself(one) for one in written]


OF_ROUNDS = {
    "infinity": ('"seconds":1.0', '"seconds":1e999'),
    "minus infinity": ('"seconds":1.0', '"seconds":-1e999'),
    "a whole number": ('"seconds":1.0', '"seconds":1'),
    "more digits than a number holds": ('"seconds":1.0', f'"seconds":{2**53 + 1}'),
    "numbers whose sum is infinite": ('"seconds":1.0', '"seconds":1.7e308,"loss":1.7e308'),
    "true": ('"seconds":1.0', '"seconds":true'),
    "a text": ('"seconds":1.0', '"seconds":"1.0"'),
    "a round that is none": ('"rounds":[{', '"rounds":[[],{'),
    "rounds that are none": ('"rounds":[', '"rounds":{"a":['),
    "more than this version knows": ('"seconds":1.0', '"seconds":1.0,"more":1'),
    "less": (',"clock_mhz":null', ""),
}


@pytest.mark.parametrize("case", OF_ROUNDS)
def test_rounds_are_looked_at_as_closely_as_they_are_by_themselves(case):
    old, new = OF_ROUNDS[case]
    text = plainly(WHOLE.to_dict()).replace(old, new)
    if case.startswith("numbers"):
        text = text.replace('"loss":null', "", 1).replace(",,", ",")
    if case == "rounds that are none":
        text = text.replace('],"latency_seconds"', ']},"latency_seconds"')
    try:
        said = json.loads(text)
        line = forged(text, said, "of its bytes")
    except ValueError:  # infinity has no checksum of what it says
        line = alike.sealed(text[:-1] + ',"checksum":"0"}')
    plain = encode(WHOLE).strip()
    assert together(plain, line, plain, line) == [by_itself(one) for one in (plain, line, plain, line)]


def test_records_for_figures_lack_what_changes_but_the_clocks_and_are_as_strictly_read():
    whole = [encode(at(seed)) for seed in (0, 1, 2)]
    wrong = [seal(OTHER_FIELDS[case](WHOLE.to_dict())) for case in ("what changes is a number", "text for a time")]
    torn = whole[0].replace('"load_1min":0.5', '"load_1min":0.6')
    content = "".join([*whole, *wrong, torn]).encode()
    found = lines.read_file(io.BytesIO(content), len(content), "x", whole=False)
    expected = read(content, "x")
    assert found.damaged == expected.damaged
    assert len(found.damaged) == 2
    for one, other in zip(found.records[:3], expected.records[:3], strict=True):
        assert one.environment == {**ENVIRONMENT, "volatile": {"after": {"gpu_clocks_locked": True}}}
        assert replace(one, environment={}) == replace(other, environment={})
    assert found.records[0].environment is found.records[1].environment
    assert found.records[3].environment["volatile"] == {}


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(alike, "MOST_TEXT", 3000)
    monkeypatch.setattr(alike, "MOST_SHARED", 5)
    written = [encode(one).strip() for one in example_run(policies=("linear_probe",), seeds=(0, 1, 2))]
    reader = alike.Alike()
    for line in written * 2:
        assert repr(reader.record(line, lines._checked)) == by_itself(line)
        assert reader._size <= 3000 + max(map(len, written))


def test_what_one_record_has_no_other_can_change():
    """What is shared is never what is given to somebody else to fill."""
    first, second = read((encode(WHOLE) * 2).encode(), "x").records
    assert first.environment is not second.environment
    assert first.environment["volatile"] is not second.environment["volatile"]
    assert first.environment["stable"] is second.environment["stable"]
    assert first.rounds is not second.rounds


# --- damage ---------------------------------------------------------------------------------------------------


def without_that_of_bytes(line):
    """A line as versions wrote it that knew the checksum of the content alone."""
    return line[: line.rindex(f',"{alike.OF_BYTES}"')] + "}"


FORMS = {"of its bytes": lambda line: line, "of its content": without_that_of_bytes}
"""What a line's checksum is of -> the line."""


@pytest.mark.parametrize("form", FORMS)
def test_a_line_is_read_by_its_checksum(form, monkeypatch):
    line = FORMS[form](encode(WHOLE).strip())
    assert repr(decode(line)) == repr(WHOLE)
    monkeypatch.setattr(lines, "unseal", None)
    assert together(line, line) == [repr(WHOLE)] * 2


@pytest.mark.parametrize("form", FORMS)
def test_every_byte_of_a_line_is_guarded(form):
    """Each byte in turn, by one bit or by another byte; among lines that it shares its pieces with."""
    generator = random.Random(0)
    line = FORMS[form](encode(WHOLE).strip()).encode()
    known = repr(WHOLE)
    for place in range(0, len(line), 1 if form == "of its bytes" else 3):
        bit, other = line[place] ^ 1 << generator.randrange(7), generator.choice(b'0123456789"{}[],:e.-nx')
        changed = other if place % 2 and other != line[place] else bit
        damaged = line[:place] + bytes([changed]) + line[place + 1 :]
        loaded = read(line + b"\n" + damaged + b"\n", "x")
        assert {repr(found) for found in loaded.records} == {known}
        # E for e, or for one of the digits of an escape: it says the same.
        assert loaded.damaged or strict_json.loads(damaged.decode()) == strict_json.loads(line.decode())
        assert loaded.damaged or chr(line[place]) in "abcdefn"


def test_a_digit_of_a_checksum_is_found_though_the_rest_is_whole():
    line = encode(WHOLE).strip()
    for name in (alike.CHECKSUM, alike.OF_BYTES):
        place = line.rindex(f'"{name}":"') + len(name) + 4
        changed = line[:place] + ("0" if line[place] != "0" else "1") + line[place + 1 :]
        for one in (by_itself(changed), *together(line, changed)[1:]):
            assert one == "its checksum does not fit: torn or changed"


SAYING_THE_SAME = {
    "other spaces": lambda line: json.dumps(json.loads(line)),
    "another order": lambda line: json.dumps(json.loads(line), sort_keys=True, separators=(",", ":")),
    "another order, with spaces": lambda line: json.dumps(dict(reversed(json.loads(line).items()))),
    "another number": lambda line: line.replace("0.9", "9e-1"),
    "other escapes": lambda line: line.replace('"phase"', '"\\u0070hase"'),
    "space at the end": lambda line: line + "  ",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", SAYING_THE_SAME)
def test_a_line_that_another_program_has_written_anew_is_read(form, case):
    line = FORMS[form](encode(WHOLE).strip())
    other = SAYING_THE_SAME[case](line)
    assert other != line
    expected = by_itself(other)
    assert expected.startswith("Record")
    assert together(line, other) == [repr(WHOLE), expected]


def test_two_digits_that_change_places_are_found():
    """Across the pieces as well."""
    generator = random.Random(1)
    line = encode(WHOLE)
    digits = [place for place, char in enumerate(line) if char.isdecimal()]
    for _ in range(300):
        one, other = sorted(generator.sample(digits, 2))
        changed = line[:one] + line[other] + line[one + 1 : other] + line[one] + line[other + 1 :]
        if changed != line:
            assert together(line.strip(), changed.strip()) == [by_itself(line), by_itself(changed)]


# --- lines whose checksum fits --------------------------------------------------------------------------------


def forged(text, said, form):
    """A line with the checksum of what somebody who reads it carelessly may take it to say."""
    mark = strict_json.checksum(strict_json.in_order(said))
    line = text[:-1] + f',"checksum":"{mark}"}}'
    return alike.sealed(line) if form == "of its bytes" else line


def plainly(data):
    return strict_json.dumps(data)


FORGED = {
    "a piece inside of a value": lambda d: (
        plainly(d).replace('"wall_seconds":10.0', '"wall_seconds":{"a":10.0').replace(
            '"image_size":', '"b":1},"image_size":', 1
        ),
        d,
    ),
    "a key twice": lambda d: (plainly(d).replace('"block":0', '"block":1,"block":0'), d),
    "a key twice, once apart from its colon": lambda d: (
        plainly(d).replace('"wall_seconds":10.0', '"wall_seconds":10.0,"wall_seconds" :99.0'),
        d,
    ),
    "a key twice in what changes": lambda d: (
        plainly(d).replace('"load_1min":0.5', '"load_1min":9,"load_1min":0.5'),
        d,
    ),
    "a key twice in a round": lambda d: (plainly(d).replace('"seconds":1.0', '"seconds":9,"seconds":1.0'), d),
    "a key twice, once in disguise": lambda d: (
        plainly(d).replace('"wall_seconds":10.0', '"a\\u0022:":1,"wall_seconds":9,"wall_seconds":10.0'),
        {**d, 'a":': 1},
    ),
    "a field twice, in two pieces": lambda d: (plainly(d).replace('"block":0', '"wall_seconds":10.0,"block":0'), d),
    "infinity": lambda d: (plainly(d).replace('"wall_seconds":10.0', '"wall_seconds":1e999'), {**d, "wall_seconds": 1}),
    "pieces that are whole together alone": lambda d: (
        plainly(d).replace('"wall_seconds":10.0', '"wall_seconds":{"a":[{"b":0').replace(
            '"compile_seconds":', '"c":1}]},"compile_seconds":', 1
        ),
        d,
    ),
    "a record that ends, and more": lambda d: (
        plainly(d).replace('"wall_seconds":10.0', '"wall_seconds":10.0},0,{"a":[{"b":0').replace(
            '"compile_seconds":', '"c":1}],"compile_seconds":', 1
        ),
        d,
    ),
    "another name for what changes": lambda d: (plainly(d).replace(',"volatile":{', ',"volatilf":{', 1), d),
    "the environment closed too early": lambda d: (
        plainly(d).replace(',"volatile":{', '},"volatile":{', 1).replace('}}},"plugins"', '}},"plugins"'),
        d,
    ),
    "the settings after the status": lambda d: (
        plainly(d).replace('"settings":{', '"status":"ok","settings":{', 1),
        d,
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", FORGED)
def test_a_line_that_is_made_to_deceive_is_refused_as_it_is_by_itself(case, form):
    data = WHOLE.to_dict()
    text, said = FORGED[case](data)
    assert text != plainly(data)
    line, plain = forged(text, said, form), encode(WHOLE).strip()
    assert together(plain, line, plain) == [by_itself(plain), by_itself(line), by_itself(plain)]
    if form == "of its content" or "twice" in case or case == "infinity":
        with pytest.raises(ValueError, match=r"JSON|checksum"):
            decode(line)


VALUES = [
    *(None, True, False, 0, 1, -1, 2**53 + 1, 10**300, 0.0, -0.0, 0.5, 1e308, "", "x", "ok", [], {}, [[]], [1], ["x"]),
    *({"x": 1}, {"volatile": {}}, {"": {"": [{}]}}, [None], [0.5, "x"], "\udcff", "\u2028", '"', ',"block":'),
]


def test_whatever_a_sealed_line_says_it_is_read_as_by_itself():
    """Values changed, taken out, renamed, put in another order at random, under a checksum that fits."""
    generator = random.Random(0)
    sources = [json.loads(plainly(one.to_dict())) for one in (WHOLE, replace(WHOLE, settings=Settings(threads=2)))]
    plain = encode(WHOLE).strip()
    taken = 0
    for _ in range(700):
        data = deepcopy(generator.choice(sources))
        damage(data, generator, VALUES, ["x", "volatile", "block", "", "key"])
        if "checksum" in data:
            continue
        line = FORMS[generator.choice([*FORMS])](seal(data).strip())
        expected = by_itself(line)
        assert together(plain, line, line, plain) == [by_itself(plain), expected, expected, by_itself(plain)]
        taken += expected.startswith("Record")
    assert taken > 60
