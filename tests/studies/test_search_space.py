import pytest

from lsmha_keras.studies.search_space import SearchSpace

pytestmark = pytest.mark.backend_free

BASE = {"num_layers": 2, "num_conv_blocks": 0, "hidden_dim": 128, "num_heads": 2}
DEEP = {**BASE, "num_layers": 5}


class Given:
    """Hyperparameters whose values the test has chosen."""

    def __init__(self, **values):
        self.values = values
        self.asked = {}

    def _value(self, name, *options, **kwargs):
        self.asked[name] = options
        return self.values[name]

    Choice = Int = Float = _value

    def Fixed(self, name, value):
        return value


def declare(table, defaults=BASE, **values):
    return SearchSpace.from_dict(table).declare(Given(**values), defaults)


def test_values_by_kind_of_dimension():
    table = {
        "num_heads": [2, 8],
        "num_conv_blocks": 1,
        "num_layers": {"min": 2, "max": 4},
        "learning_rate": {"min": 1e-4, "max": 1e-2, "sampling": "log"},
        "loss.label_smoothing": [0.0, 0.1],
    }
    given = {"num_heads": 8, "num_layers": 3, "learning_rate": 1e-3, "loss.label_smoothing": 0.1}
    assert declare(table, **given) == {**given, "num_conv_blocks": 1}


@pytest.mark.parametrize(
    "schedule, first, last, expected",
    [
        ("increasing", 2, 32, [2, 4, 8, 16, 32]),
        ("increasing", 32, 2, [2, 4, 8, 16, 32]),  # drawn the wrong way round
        ("decreasing", 2, 32, [32, 16, 8, 4, 2]),
        ("increasing", 2, 8, [2, 4, 4, 8, 8]),  # places 0, .5, 1, 1.5, 2 of the choices
        ("decreasing", 8, 8, [8, 8, 8, 8, 8]),
    ],
)
def test_schedules_of_heads(schedule, first, last, expected):
    table = {"num_heads": {"choices": [2, 4, 8, 16, 32], "schedule": schedule}}
    assert declare(table, DEEP, num_heads_first=first, num_heads_last=last) == {
        "num_heads": expected
    }


def test_free_heads_follow_the_depth():
    table = {"num_heads": {"choices": [2, 4], "schedule": "free"}, "num_layers": [2, 3]}
    given = {"num_heads_0": 2, "num_heads_1": 4, "num_heads_2": 2}
    assert declare(table, num_layers=2, **given)["num_heads"] == [2, 4]
    assert declare(table, num_layers=3, **given)["num_heads"] == [2, 4, 2]


def test_backbone_arguments():
    space = SearchSpace.from_dict({"num_heads": [2, 8], "inner_dim": 64, "learning_rate": 0.1})
    values = {"num_heads": 8, "inner_dim": 64, "learning_rate": 0.1}
    assert space.backbone_arguments(values) == {"num_heads": 8, "head_dim": 8}
    values = {"num_heads": [2, 8], "inner_dim": 64}
    assert space.backbone_arguments(values) == {"num_heads": [2, 8], "head_dim": [32, 8]}


def test_kinds_of_attention_with_their_options():
    options = {"moh": {"num_shared": 1, "top_k": 1}}
    table = {"attention": {"choices": ["multi_head", "moh"], "options": options}}
    space = SearchSpace.from_dict(table)
    space.check(BASE)
    assert space.to_dict() == table
    assert space.backbone_arguments(declare(table, attention="moh")) == {
        "attention": "moh",
        "attention_options": options["moh"],
    }
    # Options of the base are not those of another kind.
    assert space.backbone_arguments({"attention": "multi_head"})["attention_options"] == {}
    assert SearchSpace.from_dict({"attention": ["moh", "sparse"]}).attention_options == {}


def test_inner_dim_alone_keeps_the_heads():
    space = SearchSpace.from_dict({"inner_dim": [64, 128]})
    values = space.declare(Given(inner_dim=64), BASE)
    assert space.backbone_arguments(values) == {"num_heads": 2, "head_dim": 32}


def test_round_trip():
    table = {
        "num_heads": {"choices": [2, 4], "schedule": "free"},
        "num_layers": {"min": 2, "max": 6, "step": 2, "sampling": "linear"},
        "weight_decay": 0.05,
    }
    assert SearchSpace.from_dict(table).to_dict() == table


@pytest.mark.parametrize(
    "table, message",
    [
        ({}, "more than one value"),
        ({"num_heads": 4}, "more than one value"),
        ({"num_head": [2, 4]}, "num_heads"),
        ({"num_heads": []}, "at least one choice"),
        ({"num_heads": [2, 2]}, "different"),
        ({"num_heads": [0, 2]}, "at least 1"),
        ({"num_heads": [2.0, 4.0]}, "whole numbers"),
        ({"num_heads": {"choices": [2, 4], "schedule": "freely"}}, "free"),
        ({"num_heads": {"choises": [2, 4]}}, "choices"),
        ({"num_heads": [2, 3]}, r"num_heads=\[3\], hidden_dim=128"),
        ({"num_heads": [2, 4], "inner_dim": 50}, r"num_heads=\[4\], inner_dim=50"),
        ({"head_dim": [4, 8], "inner_dim": 64}, "exclude each other"),
        ({"num_conv_blocks": [0, 2]}, "num_conv_blocks up to 2, num_layers from 2"),
        ({"learning_rate": {"min": 0.1, "max": 0.1}}, "below"),
        ({"learning_rate": {"min": 0.1}}, "needs `min` and `max`"),
        ({"learning_rate": {"min": 0.0, "max": 0.1, "sampling": "log"}}, "above 0"),
        ({"learning_rate": {"min": 0.1, "max": float("nan")}}, "finite"),
        ({"learning_rate": {"min": 0.1, "max": 0.2, "sampling": "logs"}}, "log"),
        ({"learning_rate": [float("nan"), 0.1]}, "finite"),
        ({"learning_rate": {"choices": [0.1], "min": 0.2}}, "either"),
        ({"attention": ["multi_head", "mho"]}, "moh"),
        ({"attention": {"min": 0.1, "max": 0.2}}, "are names"),
        ({"attention": {"choices": ["moh"], "options": {"moa": {}}}}, "options.moa"),
        ({"attention": {"choices": ["moh"], "options": {"moh": 2}}}, "options.moh=2"),
        ({"attention": {"choices": ["moh"], "options": {"moh": {"topk": 2}}}}, "top_k"),
        ({"attention": {"choices": ["moh"], "option": {}}}, "space.attention.option"),
    ],
)
def test_bad_spaces(table, message):
    with pytest.raises(ValueError, match=message):
        SearchSpace.from_dict(table).check(BASE)


@pytest.mark.parametrize("space", [{"num_layers": [2, 3]}, {"num_conv_blocks": [0, 1]}])
def test_listed_heads_of_the_base_have_one_depth(space):
    listed = {**BASE, "num_heads": [2, 4]}
    with pytest.raises(ValueError, match=r"num_heads=\[2, 4\]"):
        SearchSpace.from_dict(space).check(listed)
    SearchSpace.from_dict({**space, "num_heads": [2, 4]}).check(listed)
    SearchSpace.from_dict({"learning_rate": [0.1, 0.2]}).check(listed)


@pytest.mark.parametrize(
    "table",
    [{"num_layers": [2, 3]}, {"num_heads": {"choices": [2, 4], "schedule": "free"}}],
)
def test_listed_blocks_are_as_many_as_they_are(table):
    listed = {**BASE, "blocks": ["spectral", "attention"]}
    with pytest.raises(ValueError, match=r"blocks=\['spectral', 'attention'\]"):
        SearchSpace.from_dict(table).check(listed)
    SearchSpace.from_dict({"num_heads": [2, 4]}).check(listed)


def test_any_head_count_with_a_width_of_its_own():
    SearchSpace.from_dict({"num_heads": [3, 25], "head_dim": [5]}).check(BASE)


def test_truth_values_stay_what_they_are():
    hp = pytest.importorskip("keras_tuner").HyperParameters()
    space = SearchSpace.from_dict({"ema.enabled": [True, False]})
    assert space.declare(hp, BASE) == {"ema.enabled": True}
    hp.values["ema.enabled"] = 0
    assert space.declare(hp, BASE)["ema.enabled"] is False


def test_declared_as_keras_tuner_draws_them():
    keras_tuner = pytest.importorskip("keras_tuner")
    hp = keras_tuner.HyperParameters()
    table = {
        "num_heads": [2, 8],
        "num_layers": {"min": 2, "max": 6, "step": 2},
        "learning_rate": {"min": 1e-4, "max": 1e-2, "sampling": "log"},
        "weight_decay": 0.05,
    }
    SearchSpace.from_dict(table).declare(hp, BASE)
    drawn = {p.name: {p.random_sample(seed) for seed in range(60)} for p in hp.space}
    assert drawn["num_heads"] == {2, 8}
    assert drawn["num_layers"] == {2, 4, 6}
    rates = sorted(drawn["learning_rate"])
    assert 1e-4 <= rates[0] and rates[-1] <= 1e-2
    # Even in the logarithm: half of the draws lie below the middle of the decades.
    assert 15 < sum(rate < 1e-3 for rate in rates) < 45


def test_the_width_of_the_heads_of_the_base_counts():
    from lsmha_keras.studies.study import Study

    splits = {"train_split": "train[:90%]", "validation_split": "train[90%:]"}
    recipe = {
        "data": {"name": "digits", **splits},
        "schedule": {"epochs": 1},
        "model": {"preset": "cct_2_3x2_h25x5"},
    }
    study = Study.from_dict(
        {"name": "rate", "recipe": recipe, "space": {"learning_rate": [0.1, 1.0]}}
    )
    assert study.defaults["head_dim"] == 5 and study.defaults["hidden_dim"] % 25
    assert study.trial_recipe({"learning_rate": 0.1}).optimizer.learning_rate == 0.1
    # As wide as the model, heads must divide it.
    with pytest.raises(ValueError, match="hidden_dim must be a multiple"):
        SearchSpace.from_dict({"learning_rate": [0.1, 1.0]}).check({**BASE, "num_heads": 25})
