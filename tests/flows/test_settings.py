"""Settings of conditioners: signatures and help, refusals, and their forms in a file and in the core."""

import ast
import inspect
import pathlib
from dataclasses import dataclass

import numpy as np
import pytest

import headrace as hr
from headrace._base.stored import Stored
from headrace._core import cpu
from headrace._core.settings import NetworkSettings, Settings, setting

NETWORK = {"activation": "relu"}
BLOCKS = {"last_activation": None, "residual": False, "dropout": 0.0}
LINK = {"link": "reverse"}
SCALE = {"map": "affine", "scale": "soft_clamp", "slope": 1e-3}
SPLINE = {"bins": 8, "bound": 5.0}
ANY_MAP = {**SCALE, **SPLINE, "min_bin": 1e-3}
CONDITIONER = {**NETWORK, **ANY_MAP, "formula": "to_data"}
FRESH = {"seed": 0, "dtype": "float32"}
FLOW = {
    "context": 0, "transforms": 5, "hidden": (64, 64), "base": None, "bounds": None, "periodic": None, **FRESH,
    "matmul": "exact",
}  # fmt: skip
CHAIN = {**FLOW, "transforms": 32, **NETWORK}
DESCRIBED = {"network": None, "context_weights": (), "context_biases": ()}
NEEDED = inspect.Parameter.empty

SIGNATURES = {
    hr.MAF: {"features": NEEDED, **FLOW, **NETWORK, **BLOCKS, **LINK, **SCALE},
    hr.IAF: {"features": NEEDED, **FLOW, **NETWORK, **BLOCKS, **LINK, **SCALE},
    hr.RealNVP: {"features": NEEDED, **FLOW, "transforms": 8, **NETWORK, **BLOCKS, **LINK, **SCALE},
    hr.NSF: {"features": NEEDED, **FLOW, **NETWORK, **BLOCKS, **LINK, **SPLINE, "slope": 1e-3, "coupling": False},
    hr.PlanarFlow: {"features": NEEDED, **CHAIN, "nonlinearity": "tanh", "negative_slope": 0.2},
    hr.RadialFlow: {"features": NEEDED, **CHAIN},
    hr.transforms.MaskedAutoregressive: {
        "features": NEEDED, "hidden": (64, 64), "context": 0, "order": None, **FRESH, **CONDITIONER, **BLOCKS,
        "reads": "data",
    },
    hr.transforms.Coupling: {
        "features": NEEDED, "passive": NEEDED, "hidden": (64, 64), "context": 0, **FRESH, **CONDITIONER, **BLOCKS,
    },
    hr.transforms.Elementwise: {
        "features": NEEDED, **ANY_MAP, "dtype": "float32", "map": "rq_spline", "formula": "to_latent",
    },
    hr.transforms.Planar: {
        "features": NEEDED, "hidden": (64, 64), "context": 0, **FRESH, **NETWORK, "nonlinearity": "tanh",
        "negative_slope": 0.2,
    },
    hr.transforms.Radial: {"features": NEEDED, "hidden": (64, 64), "context": 0, **FRESH, **NETWORK},
    hr.transforms.MaskedAutoregressive.from_dense: {
        "weights": NEEDED, "biases": NEEDED, "masks": NEEDED, **DESCRIBED, "context": 0, "verify": None, **CONDITIONER,
        "reads": "data", "outputs": None, "layout": "interleaved",
    },
    hr.transforms.Coupling.from_dense: {
        "weights": NEEDED, "biases": NEEDED, "masks": None, "features": NEEDED, "passive": NEEDED, **DESCRIBED,
        "context": 0, "verify": None, **CONDITIONER, "outputs": None, "layout": "interleaved",
    },
}  # fmt: skip
by_call = pytest.mark.parametrize("call", SIGNATURES, ids=lambda call: call.__qualname__)


@by_call
def test_a_signature_shows_each_keyword_and_its_default(call):
    shown = inspect.signature(call).parameters
    assert {name: p.default for name, p in shown.items() if name != "rng"} == SIGNATURES[call]
    assert ("rng" in shown) == ("seed" in SIGNATURES[call])
    assert not {p.kind for p in shown.values()} & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    assert shown["context" if "context" in shown else "features"].annotation == "int"


@by_call
def test_help_has_the_meaning_of_each_setting_once(call):
    text = inspect.getdoc(call)
    assert "**conditioner" not in text
    assert max(map(len, text.splitlines())) <= 120
    for name in inspect.signature(call).parameters.keys() & {*CONDITIONER, "reads", "outputs", "layout"}:
        assert text.count(f"\n    {name}: ") == 1, name


@by_call
def test_the_error_of_an_unknown_keyword_lists_the_known_ones(call):
    owner = getattr(call, "__self__", call).__name__
    names = ", ".join(inspect.signature(call).parameters)
    with pytest.raises(TypeError) as error:
        call(3, sizes=(8,))
    assert str(error.value) == f"sizes: expected a keyword of {owner} ({names}), got 'sizes'"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("hiden", "hidden"),
        ("hidden_features", "hidden"),
        ("num_bins", "bins"),
        ("tail_bound", "bound"),
        ("n_layers", "transforms"),
    ],
)
def test_a_keyword_of_another_library_has_a_suggestion(given, meant):
    with pytest.raises(TypeError, match=rf"got '{given}'; did you mean {meant}\?$"):
        hr.NSF(3, **{given: 4})


def test_settings_reach_the_transforms_of_a_flow():
    for flow in (hr.MAF(2, activation="tanh", slope=0.01), hr.RealNVP(2, activation="tanh", slope=0.01)):
        for t in flow.transforms[:-1]:
            assert (t._settings.activation, t._settings.slope, t._settings.map) == ("tanh", 0.01, "affine")
    spline = hr.NSF(2, activation="elu", bins=5, bound=2.0).transforms[0]._settings
    assert (spline.activation, spline.bins, spline.bound, spline.formula) == ("elu", 5, 2.0, "to_latent")
    assert hr.PlanarFlow(2, activation="elu").transforms[0]._settings.activation == "elu"


@dataclass(frozen=True, kw_only=True, repr=False)
class _More(NetworkSettings):
    """Settings of which one, `width`, is newer than the format of files."""

    width: int = setting(1, lambda settings, value: int(value), optional=True)


def test_newer_settings_are_in_a_file_only_where_they_differ_from_the_default():
    old = {"features": 2, "context": 0, "activation": "relu"}
    assert _More(features=2).header() == old
    assert _More(features=2, width=3).header() == {**old, "width": 3}
    for header in (old, {**old, "width": 3}):
        stored = Stored(header, {}, np.dtype("float32"))
        assert _More.from_file(stored).header() == header
        stored.close()
    assert _More(features=2, width=3).core_options() == {**old, "width": 3}


# ---- the core -------------------------------------------------------------------------------------------------------


def stated():
    """Return the options of a masked transform and their defaults, from the stub."""
    stub = ast.parse((pathlib.Path(hr.__file__).parent / "_core" / "core.pyi").read_text())
    kind = next(node for node in stub.body if isinstance(node, ast.ClassDef) and node.name == "MaskedOptions")
    arguments = kind.body[0].args
    return {a.arg: ast.literal_eval(d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)}


def test_the_core_takes_the_options_that_its_stub_states():
    with pytest.raises(TypeError) as error:
        cpu.MaskedOptions(reeds=[0])
    head, names = str(error.value).split(" one of ")
    assert head == "reeds: expected"
    assert {*names.split()} == {*stated()} == {*Settings(features=1).options([], [0]), "hidden", "unbiased"}
    cpu.MaskedOptions(**{**stated(), "map": "affine"})


@pytest.mark.parametrize("name", sorted(stated()))
def test_the_core_refuses_an_option_of_another_type(name):
    with pytest.raises(TypeError, match=f"^{name}: expected"):
        cpu.MaskedOptions(**{name: object})


def test_missing_required_options_are_an_error():
    with pytest.raises(ValueError, match="activation: there is none"):
        cpu.MaskedTransform(cpu.MaskedOptions(map="affine", variant="exp"), [], [])
