"""Policies as data: names, arguments, what they choose."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import examples, tiny

from tlbench.errors import NotApplicable, UserError
from tlbench.policies import freezing
from tlbench.policies.base import Outline, Param
from tlbench.policies.parse import form, parse_policy
from tlbench.policies.table import POLICIES
from tlbench.train.loop import plan_epochs

EPOCHS = 10


def model(norms: bool = True) -> Outline:
    params = [Param(name=f"{g}.conv.weight", group=g, kind="conv", is_bias=False, numel=9) for g in ("stem", "stage1")]
    if norms:
        params += [Param(name="stage1.bn.bias", group="stage1", kind="norm", is_bias=True, numel=2)]
    params += [
        Param(name="neck.fc.weight", group="neck", kind="linear", is_bias=False, numel=5),
        Param(name="head.0.weight", group="head", kind="linear", is_bias=False, numel=4),
    ]
    return Outline(groups=("stem", "stage1", "neck"), params=tuple(params))


def trains(text: str, **kwargs) -> set[str]:
    phases = parse_policy(text).phases(model(**kwargs), EPOCHS)
    return set().union(*(phase.scales for phase in phases))


def test_what_each_policy_trains():
    assert trains("linear_probe") == {"head.0.weight"}
    assert trains("last_1") == {"stage1.conv.weight", "stage1.bn.bias", "neck.fc.weight", "head.0.weight"}
    assert trains("norm") == {"stage1.bn.bias", "head.0.weight"}
    assert trains("full") == {p.name for p in model().params}


@pytest.mark.parametrize(("text", "reason"), [("last_3", "has 2 stages"), ("last_0", "has 2 stages")])
def test_a_policy_that_means_nothing_is_not_applicable(text, reason):
    with pytest.raises(NotApplicable, match=reason):
        parse_policy(text).phases(model(), EPOCHS)


def test_norm_without_normalisation_layers_is_not_applicable():
    with pytest.raises(NotApplicable, match="no normalisation layer"):
        parse_policy("norm").phases(model(norms=False), EPOCHS)


def test_batch_norm_can_be_chosen_on_any_policy():
    assert [p.bn for p in parse_policy("linear_probe+bn=adapt").phases(model(), EPOCHS)] == ["adapt"]
    assert [p.bn for p in parse_policy("full+bn=freeze").phases(model(), EPOCHS)] == ["freeze"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("linear_prob", "unknown freeze policy 'linear_prob'; did you mean 'linear_probe'?"),
        ("last_x", "unknown freeze policy 'last_x'"),
        ("full+bn=melt", "use +bn=freeze or +bn=adapt"),
        ("full+bn=freeze+bn=adapt", "use +bn=freeze or +bn=adapt"),
        ("", "unknown freeze policy ''"),
        ("layer_decay(2)", "decay is '2', not a number from 0.01 to 1"),
        ("layer_decay(nan)", "decay is 'nan', not a number from 0.01 to 1"),
        ("layer_decay()", "decay is '', not a number"),
        ("layer_decay(0.5,0.5)", "2 arguments are too many; it takes decay"),
        ("layer_decay(rate=0.5)", "unknown argument 'rate'; it takes decay"),
        ("lora(r=8.5)", "r is '8.5', not a whole number from 1 to 1024"),
        ("lora(r=8,r=4)", "r is given twice"),
        ("lora(alpha=8,4)", "alpha is given twice"),
        ("norm(1)", "1 arguments are too many; it takes none"),
        ("full(0)", "scale is '0', not a number from 0.0001 to 10"),
        ("last_1)", "unknown freeze policy 'last_1)'"),
    ],
)
def test_a_wrong_policy_is_one_clear_line(text, message):
    with pytest.raises(UserError) as caught:
        parse_policy(text)
    assert message in str(caught.value)


def test_arguments_by_position_and_by_name():
    assert parse_policy("lora(4, alpha=8)").arguments == {"r": 4, "alpha": 8}
    assert parse_policy("lora(alpha=8, r=4)").arguments == {"r": 4, "alpha": 8}
    assert parse_policy("lora(r=4)").arguments == {"r": 4, "alpha": 16}
    assert parse_policy("lora(r=4)").explicit == {"r"}
    assert parse_policy("lora").explicit == frozenset()


@pytest.mark.parametrize("name", POLICIES)
def test_how_a_policy_is_written_is_how_it_is_read(name):
    written = form(name)
    for word, place in (("_K", "_1"), ("_NAME", "_stage1")):
        written = written.replace(word, place)
    assert parse_policy(written).policy is POLICIES[name]
    arguments = {key: argument.default for key, argument in POLICIES[name].arguments.items()}
    assert parse_policy(written).arguments == arguments
    for text in examples(name):
        assert parse_policy(text).name == name


def test_every_policy_has_one_line_with_its_source():
    for policy in POLICIES.values():
        assert policy.summary
        assert policy.source
        assert "\n" not in policy.summary + policy.source


def names(text: str, epochs: int = EPOCHS) -> list[tuple[str, float]]:
    return [(phase.name, phase.share) for phase in parse_policy(text).phases(model(), epochs)]


def test_phases_of_the_schedules():
    # One epoch each, and all that is left once everything trains.
    assert names("gradual", 3) == [("linear_probe", 1 / 3), ("last_1", 1 / 3), ("last_2", 1 / 3)]
    assert names("gradual", 10) == [("linear_probe", 0.1), ("last_1", 0.1), ("last_2", 0.8)]
    assert all(phase.fresh for phase in parse_policy("gradual").phases(model(), 3))
    assert names("lp_ft(0.3)") == [("linear_probe", 0.3), ("fine_tune", 0.7)]
    # Ends at 0.512 (stem), 0.729 (stage1 and the neck), 1 (head).
    phases = parse_policy("freeze_out").phases(model(), 10)
    assert [round(phase.share * 10) for phase in phases] == [6, 2, 2]
    assert [len(phase.scales) for phase in phases] == [5, 4, 1]
    assert phases[0].ends["neck.fc.weight"] == phases[0].ends["stage1.conv.weight"] == pytest.approx(0.9**3)


@pytest.mark.parametrize(("text", "epochs"), [("gradual", 2), ("lp_ft", 1)])
def test_a_schedule_that_does_not_fit_into_the_epochs_is_not_applicable(text, epochs):
    with pytest.raises(NotApplicable, match=f"need at least {epochs + 1} epochs, not {epochs}"):
        parse_policy(text).phases(model(), epochs)


def test_freeze_out_in_one_epoch_freezes_nothing():
    (phase,) = parse_policy("freeze_out").phases(model(), 1)
    assert set(phase.scales) == {p.name for p in model().params}


def test_scales():
    (phase,) = parse_policy("layer_decay(0.5)").phases(model(), EPOCHS)
    assert phase.scales == {
        "stem.conv.weight": 0.25,
        "stage1.conv.weight": 0.5,
        "stage1.bn.bias": 0.5,
        "neck.fc.weight": 0.5,
        "head.0.weight": 1,
    }
    (phase,) = parse_policy("first_1").phases(model(), EPOCHS)
    assert set(phase.scales) == {"stem.conv.weight", "head.0.weight"}
    assert trains("first_2") == trains("full") - {"neck.fc.weight"}
    assert trains("last_2") == trains("full")
    assert trains("stage_1") == trains("stage_stage1") == trains("last_1") - {"neck.fc.weight"}
    assert trains("stage_neck") == {"neck.fc.weight", "head.0.weight"}
    assert trains("bias") == trains("norm") == {"stage1.bn.bias", "head.0.weight"}


def test_what_batch_norm_does_by_default():
    adapts = {
        text: parse_policy(text).phases(model(), EPOCHS)[0].bn for text in ("full", "norm", "bias", "linear_probe")
    }
    assert adapts == {"full": "trained", "norm": "trained", "bias": "freeze", "linear_probe": "trained"}


@pytest.mark.parametrize("text", ["lora", "lora(r=4)"])
def test_lora_without_factors_is_not_applicable(text):
    with pytest.raises(NotApplicable, match="no layer that takes low-rank factors"):
        parse_policy(text).phases(model(), EPOCHS)


# --- any expression -------------------------------------------------------------------------------------------

_names = st.sampled_from([form(name) for name in POLICIES])
_bare = st.sampled_from([*POLICIES, "last_1", "last_2", "first_1", "stage_stem", "stage_9", "las_1", "fulll"])
_numbers = st.one_of(
    st.integers(-5, 2000).map(str), st.floats().map(str), st.sampled_from(["", "x", "1e3", " 0.5", "0x1", "١"])
)
_argument = st.one_of(
    _numbers, st.builds("{}={}".format, st.sampled_from(["r", "alpha", "decay", "t0", "share", "scale", "z"]), _numbers)
)
_options = st.sampled_from(["", "+bn=freeze", "+bn=adapt", "+bn=x", "+bn", "+", "+bn=freeze+bn=freeze"])
_texts = st.one_of(
    st.text(max_size=20),
    st.builds("{}{}".format, _names, st.text(max_size=8)),
    st.builds("{}_{}".format, st.sampled_from(["last", "first", "stage"]), st.integers(-3, 10**9)),
    st.builds("{}({}){}".format, _bare, st.lists(_argument, max_size=3).map(",".join), _options),
)


@settings(deadline=None)  # the machine may be busy
@given(_texts, st.integers(1, 12))
def test_any_expression_applies_or_gives_one_clear_line(text, epochs):
    network = tiny()
    try:
        phases = parse_policy(text).phases(freezing.describe(network), epochs)
    except (UserError, NotApplicable) as error:
        assert str(error)
        assert len(str(error).splitlines()) == 1
        return
    assert sum(phase.share for phase in phases) == pytest.approx(1)
    assert len(plan_epochs(phases, epochs)) == epochs
    for phase in phases:
        freezing.apply(network, phase)
        assert {name for name, p in network.named_parameters() if p.requires_grad} == set(phase.scales)
        assert {"head.0.weight", "head.0.bias"} <= set(phase.scales)
        assert all(scale > 0 for scale in phase.scales.values())
        assert 0 <= freezing.cut(network) <= 4
