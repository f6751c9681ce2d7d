"""The table of arguments of `Flow.fit`, and the signatures, help and options that are made from it."""

import inspect
from dataclasses import fields

import numpy as np
import pytest

import headrace as hr
from headrace._base.keywords import meanings
from headrace._cli.flow_options import FIT
from headrace._flow.fit_arguments import Arguments, FitKeywords
from headrace.sklearn import FitSettings

FIELDS = {one.name: one for one in fields(Arguments)}


def test_keywords_for_static_checkers_are_the_fields_of_the_table():
    assert {name: given.__forward_arg__ for name, given in FitKeywords.__annotations__.items()} == {
        name: one.type for name, one in FIELDS.items()
    }


def test_the_signature_and_the_help_of_fit_are_those_of_the_table():
    signature = inspect.signature(hr.Flow.fit).parameters
    assert list(signature) == ["self", "x", "context", *FIELDS, "rng"]
    stated = meanings(Arguments.__doc__)
    assert [*stated] == [*FIELDS]
    text = " ".join(hr.Flow.fit.__doc__.split())
    for name, one in FIELDS.items():
        assert signature[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert signature[name].default == one.default
        assert signature[name].annotation == one.type
        assert f" {name}: {stated[name]} " in text


def test_an_estimator_and_the_command_line_take_the_arguments_of_a_fit():
    parameters = inspect.signature(FitSettings).parameters
    own = {"weights", "seed", "group", "matmul", "progress"}  # fields that an estimator renames or lacks
    assert {name: parameters[name].default for name in FIELDS if name not in own} == {
        name: one.default for name, one in FIELDS.items() if name not in own
    }
    assert {name for name, one in FIELDS.items() if one.metadata["option"]} == {*FIT}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", -1, "epochs: expected an integer"),
        ("batch_size", 0, "batch_size: expected an integer of at least 1"),
        ("learning_rate", 0.0, "learning_rate: expected"),
        ("schedule", None, "schedule: expected one of 'cosine', 'plateau', 'constant', 'auto', got None"),
        ("optimizer", "sgd", "optimizer: expected one of 'adam', 'muon', 'auto', got 'sgd'"),
        ("weight_decay", "none", "weight_decay: expected one of 'auto'"),
        ("clip", -1.0, "clip: expected"),
        ("average", 1.0, "average: expected"),
        ("patience", 0, "patience: expected"),
        ("gaussianize", None, "gaussianize: expected True, False or 'auto', got None"),
    ],
)
@pytest.mark.parametrize("group", [None, hr.distributed.local()], ids=["one process", "a group"])
def test_wrong_values_are_refused_by_name(name, value, expected, group):
    with pytest.raises(ValueError, match=expected):
        hr.MAF(2).fit(np.random.default_rng(0).random((60, 2)), group=group, progress=False, **{name: value})


def test_an_unknown_keyword_is_refused():
    with pytest.raises(
        TypeError, match=r"epoch: expected a keyword of MAF.fit \(x, context, weights, .*keep, rng\), got 'epoch'"
    ):
        hr.MAF(2).fit(np.zeros((3, 2)), epoch=3)
