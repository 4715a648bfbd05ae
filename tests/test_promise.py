"""A race begins with the backbone that promises most where a profile of the machine says that there is room for it."""

from types import SimpleNamespace

import pytest
from test_find import World

from tlbench.analysis.expectation import Expectation
from tlbench.campaign import promise
from tlbench.campaign.foretelling import profiles_for
from tlbench.campaign.promise import foresee_the_best
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.profiles import read_profiles
from tlbench.machine.times import place

BACKBONES = {"backbone": tuple(f"efficientnet_lite{n}" for n in range(3))}


def slow(cell):
    return {"linear_probe": 10.0, "last_1": 20.0}[cell.freeze] * {"0": 1.0, "1": 1.5, "2": 4.0}[cell.backbone[-1]]


@pytest.fixture
def machine(monkeypatch):
    """Stands in for profiles of a machine: a backbone that was profiled takes what `slow` says."""
    profiled = []

    def profiles_for(cells, settings, say, quick):
        assert quick
        profiled.append(cells[0].backbone)
        return {cells[0].backbone: SimpleNamespace()}, {}

    monkeypatch.setattr(promise, "profiles_for", profiles_for)
    monkeypatch.setattr(promise, "PASSES", 1)
    return profiled


def world_of(folder, monkeypatch, budget, takes=slow, **more):
    world = World(folder, budget=budget, axes=BACKBONES, seconds=takes, accuracy=lambda cell: 0.7, **more)
    world.campaign.say = lambda line: None
    times, known = world.campaign.times, set()
    monkeypatch.setattr(times, "know", lambda profiles: known.update(profiles))
    monkeypatch.setattr(times, "by_profile", lambda cell: cell.backbone in known)
    rule = world.racing._expecting.of_all
    monkeypatch.setattr(
        world.racing._expecting,
        "of_all",
        lambda cells: takes(cells[0]) if cells[0].backbone in known else rule(cells),
    )
    return world


def looks(world):
    return [(cell.backbone[-1], cell.freeze) for cell, _, _ in world.run().asked]


def test_it_begins_with_the_best_backbone_where_the_machine_is_known(tmp_path, monkeypatch, machine):
    world, said = world_of(tmp_path / "run", monkeypatch, budget=300), []
    foresee_the_best(world.racing, said.append)
    assert machine == ["efficientnet_lite0"], "the least of the family tells of the others"
    assert len(said) == 1
    assert said[0].startswith("it begins with efficientnet_lite2 last_1 linear, which is expected to take up to ")
    found = looks(world)
    assert found[0] == ("2", "last_1")
    assert ("0", "linear_probe") in found, "what is cheap has its look all the same"


def test_without_room_for_the_best_it_is_the_one_after_it(tmp_path, monkeypatch, machine):
    world = world_of(tmp_path / "run", monkeypatch, budget=60)
    foresee_the_best(world.racing, lambda line: None)
    assert looks(world)[0] == ("1", "last_1")


def test_where_none_has_room_the_cheapest_cell_begins(tmp_path, monkeypatch, machine):
    world = world_of(tmp_path / "run", monkeypatch, budget=300, takes=lambda cell: 100 * slow(cell))
    said = []
    foresee_the_best(world.racing, said.append)
    assert machine == ["efficientnet_lite0"]
    assert not said
    assert world.racing.next().tasks[0].step.cell.freeze == "linear_probe"


def test_a_backbone_that_a_profile_covers_is_not_profiled_again(tmp_path, monkeypatch, machine):
    world = world_of(tmp_path / "run", monkeypatch, budget=300)
    world.campaign.times.know({"efficientnet_lite2": None})
    foresee_the_best(world.racing, lambda line: None)
    assert not machine
    assert looks(world)[0] == ("2", "last_1")


def test_the_model_that_is_to_be_kept_has_its_room(tmp_path, monkeypatch, machine):
    """Making it takes as long as the look again, for which nothing would be left."""
    world = world_of(tmp_path / "run", monkeypatch, budget=140, keep="best")
    monkeypatch.setattr(world.racing._expecting, "making", lambda cells, seconds: seconds)
    foresee_the_best(world.racing, lambda line: None)
    assert looks(world)[0] == ("1", "last_1")


def test_a_first_look_that_the_budget_has_ended_is_not_begun_again(tmp_path, monkeypatch, machine):
    """It was, a second at a time, until somebody stopped it."""
    world = world_of(tmp_path / "run", monkeypatch, budget=300)
    foresee_the_best(world.racing, lambda line: None)
    world.seconds = lambda cell: 1e5
    world.run(most=20)
    assert len(world.asked) == 1
    assert world.racing.is_over
    assert world.state.ended


def test_a_profile_that_takes_too_much_of_the_budget_is_not_made(tmp_path, monkeypatch, machine):
    world = world_of(tmp_path / "run", monkeypatch, budget=300)
    monkeypatch.setattr(promise, "PASSES", 10**6)
    foresee_the_best(world.racing, lambda line: None)
    assert not machine
    assert looks(world)[0] == ("0", "linear_probe")


def test_a_race_that_goes_on_profiles_nothing(tmp_path, monkeypatch, machine):
    world = world_of(tmp_path / "run", monkeypatch, budget=300).run(1)
    foresee_the_best(world.racing, lambda line: None)
    assert not machine


def test_a_backbone_that_cannot_be_profiled_is_left_to_the_race(tmp_path, monkeypatch):
    monkeypatch.setattr(
        promise, "profiles_for", lambda cells, settings, say, quick: ({}, {("key", ""): "no such layer"})
    )
    world = world_of(tmp_path / "run", monkeypatch, budget=300)
    foresee_the_best(world.racing, lambda line: None)
    assert looks(world)[0] == ("0", "linear_probe")


def test_what_is_measured_in_a_hurry_tells_seconds_alone_and_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path))
    cell = Cell(backbone="mobilenet_v3_small", weights="random", image_size=32, dataset="synthetic", freeze="last_1")
    settings = Settings()
    found, problems = profiles_for([cell], settings, quick=True)
    assert not problems
    (profile,) = found.values()
    assert profile.quick
    assert not read_profiles(place("cpu", settings.threads)), "a plan would take it for a whole one"
    times = Expectation(settings=settings)
    times.know(found)
    (foreseen,) = times.foresee([(cell, 0)])
    assert foreseen.by == "profile"
    assert foreseen.seconds > 0
    assert foreseen.memory_bytes is None


def test_a_hurry_takes_nothing_from_what_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path))
    cells = [
        Cell(backbone="mobilenet_v3_small", weights="random", image_size=32, dataset="synthetic", freeze=freeze)
        for freeze in ("full", "last_1")
    ]
    settings = Settings()
    (known,) = profiles_for(cells[:1], settings)[0].values()
    (profile,) = profiles_for(cells[1:], settings, quick=True)[0].values()
    assert profile.quick
    assert set(profile.policies) == {"full", "last_1"}
    assert profile.policies["full"] == known.policies["full"]
    assert {name: profile.modes[name] for name in known.modes} == known.modes
