"""Policies as data: names, arguments, what they choose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbench.errors import NotApplicable, UserError
from tlbench.policies import POLICIES, Model, Param, form, parse_policy

EPOCHS = 10


def model(norms: bool = True) -> Model:
    params = [Param(name=f"{g}.conv.weight", group=g, kind="conv", is_bias=False, numel=9) for g in ("stem", "stage1")]
    if norms:
        params += [Param(name="stage1.bn.bias", group="stage1", kind="norm", is_bias=True, numel=2)]
    params += [
        Param(name="neck.fc.weight", group="neck", kind="linear", is_bias=False, numel=5),
        Param(name="head.0.weight", group="head", kind="linear", is_bias=False, numel=4),
    ]
    return Model(groups=("stem", "stage1", "neck"), params=tuple(params))


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
    ],
)
def test_a_wrong_policy_is_one_clear_line(text, message):
    with pytest.raises(UserError) as caught:
        parse_policy(text)
    assert message in str(caught.value)


_names = st.sampled_from([form(name) for name in POLICIES])
_texts = st.one_of(
    st.text(max_size=20),
    st.builds("{}{}".format, _names, st.text(max_size=8)),
    st.builds("last_{}".format, st.integers(-3, 10**9)),
    st.builds("{}+bn={}".format, _names, st.sampled_from(["freeze", "adapt", "x"])),
)


@given(_texts)
def test_any_expression_applies_or_gives_one_clear_line(text):
    try:
        phases = parse_policy(text).phases(model(), EPOCHS)
    except (UserError, NotApplicable) as error:
        assert str(error)
        assert len(str(error).splitlines()) == 1
    else:
        assert all("head.0.weight" in phase.scales for phase in phases)
        assert sum(phase.share for phase in phases) == pytest.approx(1)
