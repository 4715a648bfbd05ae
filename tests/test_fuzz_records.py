"""The reader of records, fed files that were changed at random and files that were made to deceive: no crash, and no
record that is not, to the last bit, one that was written.
"""

import json
import random
from collections import Counter

import pytest
from damage import damage

from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.records import lines as store
from tlbench.records import strict_json
from tlbench.records.lines import decode, encode, read
from tlbench.records.record import Record, Round

FILES = 100_000


def record(**changes) -> Record:
    given = {
        "id": "resnet18-linear_probe-linear-digits-cpu-s0",
        "cell": Cell(lr=0.5),
        "settings": Settings(),
        "status": "ok",
        "started": "2026-01-01T00:00:00+00:00",
        "suite_version": "0",
    }
    return Record(**{**given, **changes})


ORIGINALS = [
    record(
        id="0",
        rounds=(Round(phase="full", seconds=0.1, samples=10, loss=0.5, accuracy_val=1.0),),
        weights={"source": "random", "pretrained": False, "sha256": None},
        samples={"train": 10, "val": 0},
        accuracy_test=1 / 3,
        loss_test=-0.0,
    ),
    record(id="1", status="failed", reason='a\n"b" \\ \u2028 ü \udcff 🐈 \0'),
    record(id="2", latency_seconds=(1e-300, 0.25, 7.0), lr_trials=({"lr": 1e-5}, {"lr": None})),
]
LINES = [encode(one).encode() for one in ORIGINALS]
KNOWN = {one.id: repr(one) for one in ORIGINALS}
"""As text: equality would take 0.0 for -0.0, and 1 for True."""

TOKENS = [
    *(b"1e999", b"-1e999", b"NaN", b"Infinity", b"-Infinity", b"-0.0", b"0", b"-0", b"1" * 5000, b"0." + b"0" * 400),
    *(b"null", b"true", b"[]", b"{}", b"[", b"]", b"{", b"}", b'"', b",", b":", b"\\", b"\n", b"\r\n", b"\r", b"\0"),
    *(b"\\u0000", b"\\ud800", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\x1b[31m"),
    *(b'"checksum":"0000000000000000",', b'"status":"ok",', b'"id":"0",', b'"schema":99,', b'"cell":{},', b" ", b"\t"),
    *(b"[" * 2000, b'{"a":' * 2000, b"//", b"/*", b"\x80\x04\x95", b"cos\nsystem\n", b"\x00\x00\x00\x00"),
]


def flip(content, at, generator):
    content[at] ^= 1 << generator.randrange(8)


def replace(content, at, generator):
    content[at] = generator.randrange(256)


def digit(content, at, generator):
    """Another digit for a digit: what stays valid JSON."""
    for place in range(at, min(at + 60, len(content))):
        if 48 <= content[place] <= 57:
            content[place] = 48 + generator.randrange(10)
            return


def insert(content, at, generator):
    content[at:at] = generator.choice(TOKENS)


def overwrite(content, at, generator):
    token = generator.choice(TOKENS)
    content[at : at + len(token)] = token


def cut(content, at, generator):
    del content[at : at + generator.choice((1, 1, 2, 8, 100, 1000))]


def tear(content, at, generator):
    del content[at:]


def double(content, at, generator):
    length = generator.choice((1, 3, 20, 300))
    content[at:at] = content[at : at + length]


def move(content, at, generator):
    length, to = generator.choice((1, 5, 40)), generator.randrange(len(content))
    piece = content[at : at + length]
    del content[at : at + length]
    content[to:to] = piece


def splice(content, at, generator):
    other = generator.choice(LINES)
    start = generator.randrange(len(other))
    content[at : at + generator.choice((0, 10, 200))] = other[start : start + generator.choice((5, 50, 500))]


MUTATIONS = [flip, replace, digit, insert, overwrite, cut, tear, double, move, splice]
LAYOUTS = [*[[n] for n in range(len(LINES))] * 3, [0, 1], [1, 2, 0]]


def check(content):
    """Reads a file: whatever is taken for a record is one that was written, and every whole line is still there."""
    loaded = read(content, "x")
    assert all(repr(found) == KNOWN[found.id] for found in loaded.records)
    assert all(line.isprintable() for line in loaded.damaged)
    lines = Counter(line + b"\n" for line in content.split(b"\n"))
    found = Counter(one.id for one in loaded.records)
    for number, line in enumerate(LINES):
        assert found[str(number)] >= lines[line]
    return loaded


def test_the_originals_are_read():
    loaded = check(b"".join(LINES))
    assert loaded.records == ORIGINALS
    assert not loaded.damaged


@pytest.mark.exhaustive
@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_changed_files(mutate):
    """100,000 of them in all."""
    generator = random.Random(mutate.__name__)
    refused = 0
    for _ in range(FILES // len(MUTATIONS)):
        content = bytearray(b"".join(LINES[n] for n in generator.choice(LAYOUTS)))
        for _ in range(generator.choice((1, 1, 1, 2, 5))):
            mutate(content, generator.randrange(len(content) or 1), generator) if content else None
        refused += bool(check(bytes(content)).damaged)
    assert refused > FILES // len(MUTATIONS) / 20, "most changes are found"


# --- texts that are JSON to some and not to others ------------------------------------------------------------


def swapped(old, new):
    def change(line):
        assert old in line
        return line.replace(old, new, 1)

    return change


DECEPTIVE = {
    "a key twice": swapped('"status":"ok"', '"status":"failed","status":"ok"'),
    "a key twice, deep down": swapped('"seconds":0.1', '"seconds":9,"seconds":0.1'),
    "a checksum twice": swapped('"checksum"', '"checksum":"x","checksum"'),
    "no checksum": lambda line: line[: line.rindex(',"checksum"')] + "}",
    "a checksum of null": lambda line: line[: line.rindex(',"checksum"')] + ',"checksum":null}',
    "minus zero": swapped('"loss_test":-0.0', '"loss_test":0.0'),
    "a whole number for a fraction": swapped('"accuracy_val":1.0', '"accuracy_val":1'),
    "true for one": swapped('"accuracy_val":1.0', '"accuracy_val":true'),
    "text for a number": swapped('"seconds":0.1', '"seconds":"0.1"'),
    "infinity by overflow": swapped('"seconds":0.1', '"seconds":1e999'),
    "NaN": swapped('"seconds":0.1', '"seconds":NaN'),
    "a digit beyond what a float holds": swapped("0.3333333333333333", "0.3333333333333334"),
    "a huge whole number": swapped('"samples":10', '"samples":1' + "0" * 5000),
    "null for a number": swapped('"seconds":0.1', '"seconds":null'),
    "a byte order mark": lambda line: "\ufeff" + line,
    "something after the end": lambda line: line + "{}",
    "two records in a line": lambda line: line + line,
    "a comment": lambda line: line + " // x",
    "a comma too many": lambda line: line[:-1] + ",}",
    "single quotes": lambda line: line.replace('"', "'"),
    "nested without end": lambda line: "[" * 100_000,
    "nested and closed": lambda line: line[:-1] + ',"x":' + "[" * 100_000 + "]" * 100_000 + "}",
    "a list": lambda line: f"[{line}]",
    "a text": json.dumps,
    "null": lambda line: "null",
    "a number": lambda line: "1",
}


@pytest.mark.parametrize("case", DECEPTIVE)
def test_a_deceptive_line_is_refused(case):
    line = DECEPTIVE[case](LINES[0].decode().strip())
    with pytest.raises(ValueError) as caught:
        decode(line)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "change",
    [
        swapped('"loss_test":-0.0', '"loss_test":-0.000'),
        swapped('"seconds":0.1', '"seconds" : 1e-1'),
        swapped('"seconds":0.1', '"seconds":0.1000000000000000055511151231257827'),
        swapped('"status":"ok"', '"st\\u0061tus":"\\u006fk"'),
    ],
)
def test_another_way_of_writing_the_same_is_the_same(change):
    assert repr(decode(change(LINES[0].decode()))) == KNOWN["0"]


# --- lines whose checksum fits --------------------------------------------------------------------------------

VALUES = [
    *(None, True, False, 0, 1, -1, 2**31, 2**70, 10**300, 0.0, -0.0, 0.5, 1e308, 5e-324, "", "x", "0", "1.5", "ok"),
    *("\0", "\udcff", "\ud800\udc00", "\u2028", "a" * 1000, [], {}, [[]], [1], ["x"], {"x": 1}, {"seconds": "1"}),
    *([None], [0.5, "x"], [{"phase": "x", "seconds": 1, "samples": 1}], {"task": 5}, [{}], {"": {"": [{}]}}),
]


def known_part(given, kept):
    """What of the given data a record knows: where it kept an object, its keys."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return {key: known_part(value, kept[key]) for key, value in given.items() if key in kept}
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return [known_part(one, other) for one, other in zip(given, kept, strict=True)]
    return given


@pytest.mark.exhaustive
def test_a_line_whose_checksum_fits_is_refused_or_kept_as_it_is():
    """A whole number may stand for a fraction; nothing else is converted, cut off or filled in silently."""
    generator = random.Random(0)
    sources = [json.loads(line) for line in LINES]
    refused = taken = 0
    for _ in range(8_000):
        data = json.loads(json.dumps(generator.choice(sources)))
        del data["checksum"], data["line_checksum"]
        damage(data, generator, VALUES, ["x", "checksum", "key", "", "\udcff"], of=8)
        line = store.seal(data)
        if "checksum" in data:
            continue
        try:
            found = decode(line)
        except ValueError as error:
            refused += 1
            assert str(error).isprintable()
            continue
        taken += 1
        kept = json.loads(strict_json.dumps(found.to_dict()))
        data.pop("key", None)
        expected = known_part(data, kept)
        assert floats(kept, expected) == json.dumps(expected, sort_keys=True)
        again = decode(encode(found))
        assert repr(again) == repr(found)
    assert refused > 500
    assert taken > 500


def floats(kept, expected):
    """``kept`` as text, less what was filled in by defaults, a whole number written as where it was given."""

    def part(own, given):
        if isinstance(own, dict) and isinstance(given, dict):
            return {key: part(own[key], value) for key, value in given.items()}
        if isinstance(own, list) and isinstance(given, list) and len(own) == len(given):
            return [part(one, other) for one, other in zip(own, given, strict=True)]
        if isinstance(own, float) and type(given) is int and own == given:
            return given
        return own

    return json.dumps(part(kept, expected), sort_keys=True)


@pytest.mark.parametrize("text", ["1e999", "[-1e999]", "NaN", '{"x":-Infinity}', '{"a":1,"a":1}', "[" * 10**6, "", "x"])
def test_json_that_is_not_strict(text):
    with pytest.raises(ValueError, match="JSON"):
        strict_json.loads(text)
