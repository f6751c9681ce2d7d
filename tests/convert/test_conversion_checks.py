"""Errors of converters name the unsupported part, and converters do not change models."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest

import headrace as hr
from convert_cases import Draw, library, shaken, zuko_flow
from headrace import convert
from headrace.convert import _verify
from headrace.convert._verify import verify_made

pytestmark = pytest.mark.filterwarnings("ignore")  # deprecations within the libraries


@pytest.mark.programs
def test_no_library_is_imported_before_a_model_is_given():
    code = (
        "import sys, headrace as hr; hr.convert.from_zuko; hr.accelerate; "
        "found = {'torch', 'jax', 'zuko', 'nflows', 'normflows', 'flowjax', 'glasflow', 'sbi'} & set(sys.modules); "
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def zuko():
    return library("zuko")


@pytest.fixture
def torch(zuko):
    return library("torch")


def test_a_hook_that_changes_a_part_is_found(torch):
    flow = zuko_flow(Draw(0, False))
    flow.transform.transforms[0].hyper.register_forward_hook(lambda module, inputs, output: 1.01 * output)
    with pytest.raises(
        ValueError, match=r"^verify: expected the log densities of the source to 1e-07, but they differ"
    ):
        convert.from_zuko(flow)
    assert isinstance(convert.from_zuko(flow, verify=False), hr.Flow)


def test_a_subclass_that_computes_something_else_is_found_or_refused(torch, zuko):
    class Other(zuko.flows.MAF):
        def forward(self, c=None):
            return super().forward(None if c is None else 2.0 * c)

    shifted = Other(3, 2, transforms=1, hidden_features=(8,))
    with pytest.raises(ValueError, match=r"^verify: .* differ by up to"):
        convert.from_zuko(shifted)

    class Layer(zuko.flows.MaskedAutoregressiveTransform):
        def forward(self, c=None):
            return super().forward(c).inv

    flow = zuko.lazy.Flow([Layer(3, hidden_features=(8,))], zuko.flows.MAF(3).base)
    message = r"^model\.transform\.transforms\[0\]: expected .*Layer, a MaskedAutoregressiveTransform with a forward of"
    with pytest.raises(NotImplementedError, match=message + r" its own; headrace\.convert\.register takes"):
        convert.from_zuko(flow)


def test_a_subclass_that_changes_no_formula_counts_as_its_class(torch, zuko):
    class Layer(zuko.flows.MaskedAutoregressiveTransform):
        def __init__(self, features):
            super().__init__(features, hidden_features=(8,))

        def extra_repr(self):
            return "mine"

    flow = zuko.lazy.Flow([Layer(3)], zuko.flows.MAF(3).base)
    x = torch.randn(20, 3)
    with torch.no_grad():
        np.testing.assert_allclose(convert.from_zuko(flow).log_prob(x), flow().log_prob(x), rtol=1e-5)


def test_a_subclass_of_a_linear_map_of_normflows(torch):
    nf = library("normflows")

    class Mixed(nf.flows.LULinearPermute):
        def __init__(self):
            super().__init__(3, identity_init=False)

    flow = shaken(nf.NormalizingFlow(nf.distributions.DiagGaussian(3), [Mixed()]), 0).double()
    x = torch.randn(20, 3, dtype=torch.float64)
    with torch.no_grad():
        np.testing.assert_allclose(convert.from_normflows(flow).log_prob(x), flow.log_prob(x), rtol=1e-10)

    class Bent(nf.flows.LULinearPermute):
        def inverse(self, z, context=None):
            return super().inverse(1.1 * z, context)

    flow.flows[0] = Bent(3)
    with pytest.raises(NotImplementedError, match=r"Bent, a LULinearPermute with a inverse of its own; headrace\.conv"):
        convert.from_normflows(flow)


def test_nflows_with_a_permutation_and_a_composition_of_a_users_own(torch):
    transforms, flows = library("nflows.transforms"), library("nflows.flows")

    class Shuffled(transforms.Permutation):  # calorimeter simulations subclass Permutation
        def __init__(self, features):
            super().__init__(torch.arange(features).flip(0))

    class Guided(transforms.CompositeTransform):
        def parts(self):
            return len(self._transforms)

    layers = [transforms.MaskedAffineAutoregressiveTransform(3, 8), Shuffled(3)]
    flow = shaken(flows.Flow(Guided(layers), library("nflows.distributions").StandardNormal([3])), 0).double()
    x = torch.randn(20, 3, dtype=torch.float64)
    with torch.no_grad():
        np.testing.assert_allclose(convert.from_nflows(flow).log_prob(x), flow.log_prob(x), rtol=1e-10)

    class Steps(transforms.CompositeTransform):
        @staticmethod
        def _cascade(inputs, funcs, context, get_steps=False):
            return transforms.CompositeTransform._cascade(inputs, funcs, context)

    given = convert.from_nflows(flow).parameters
    flow._transform = Steps(layers)
    with pytest.raises(
        NotImplementedError, match=r"Steps, a CompositeTransform with a _cascade of its own; headrace\.conv"
    ):
        convert.from_nflows(flow)
    flow._transform = transforms.CompositeTransform(flow._transform._transforms)  # docs/convert.md has this remedy
    assert np.array_equal(convert.from_nflows(flow).parameters, given)

    class Bent(transforms.MaskedAffineAutoregressiveTransform):
        def _elementwise_forward(self, inputs, parameters):
            return super()._elementwise_forward(inputs, 1.1 * parameters)

    flow = flows.Flow(Bent(3, 8), library("nflows.distributions").StandardNormal([3]))
    with pytest.raises(NotImplementedError, match=r"Bent, a MaskedAffine\w+ with a _elementwise_forward of its own"):
        convert.from_nflows(flow)


@pytest.mark.parametrize("is_turned", [False, True])
def test_a_registered_function_reads_a_part(torch, monkeypatch, is_turned):
    transforms, flows = library("nflows.transforms"), library("nflows.flows")
    from headrace.convert import _parts

    monkeypatch.setattr(_parts, "READERS", {})

    class Doubled(transforms.Transform):
        def forward(self, inputs, context=None):
            return 2.0 * inputs, torch.full((len(inputs),), inputs.shape[1] * np.log(2.0), dtype=inputs.dtype)

        def inverse(self, inputs, context=None):
            return 0.5 * inputs, torch.full((len(inputs),), -inputs.shape[1] * np.log(2.0), dtype=inputs.dtype)

    part = transforms.InverseTransform(Doubled()) if is_turned else Doubled()
    chain = transforms.CompositeTransform([transforms.MaskedAffineAutoregressiveTransform(3, 8), part])
    flow = shaken(flows.Flow(chain, library("nflows.distributions").StandardNormal([3])), 0).double()
    with pytest.raises(NotImplementedError, match=r"got \S+'s \S+Doubled"):
        convert.from_nflows(flow)
    convert.register(Doubled, lambda part, n: [hr.transforms.Standardize(np.zeros(n), np.full(n, 0.5))])
    x = torch.randn(20, 3, dtype=torch.float64)
    with torch.no_grad():
        np.testing.assert_allclose(convert.from_nflows(flow).log_prob(x), flow.log_prob(x), rtol=1e-10)
    with pytest.raises(TypeError, match=r"^kind: expected a class, got"):
        convert.register(part, lambda part, n: [])
    with pytest.raises(TypeError, match=r"^reader: expected a function of a part and its features, got int"):
        convert.register(Doubled, 3)


def test_models_without_parameters_and_bases_of_images_are_named(torch):
    transforms, flows = library("nflows.transforms"), library("nflows.flows")
    distributions = library("nflows.distributions")
    plain = flows.Flow(transforms.ReversePermutation(3), distributions.StandardNormal([3]))
    with pytest.raises(TypeError, match=r"^model: expected a model with parameters, got one without"):
        convert.from_nflows(plain)
    image = flows.Flow(transforms.ReversePermutation(3), distributions.StandardNormal([3, 4, 4]))
    with pytest.raises(NotImplementedError, match=r"_distribution\._shape: expected one dimension, got \(3, 4, 4\)"):
        convert.from_nflows(image)


@pytest.mark.parametrize("slope", [1e-2, 1e-4])
def test_the_slope_of_a_model_is_kept(torch, zuko, slope):
    import functools

    univariate = functools.partial(zuko.transforms.MonotonicAffineTransform, slope=slope)
    flow = shaken(zuko.flows.MAF(3, transforms=2, hidden_features=(8,), univariate=univariate), 0, 0.4).double()
    x = torch.randn(20, 3, dtype=torch.float64)
    with torch.no_grad():
        np.testing.assert_allclose(convert.from_zuko(flow).log_prob(x), flow().log_prob(x), rtol=1e-12)


def test_a_model_does_not_change(torch):
    transforms, flows = library("nflows.transforms"), library("nflows.flows")
    made = transforms.CompositeTransform([transforms.MaskedAffineAutoregressiveTransform(2, 8, use_batch_norm=True)])
    flow = shaken(flows.Flow(made, library("nflows.distributions").StandardNormal([2])), 0)
    flow.train()
    for module in flow.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.eval()
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    modes = [module.training for module in flow.modules()]
    convert.from_nflows(flow)
    assert [module.training for module in flow.modules()] == modes
    for name, value in flow.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert value.dtype == before[name].dtype


def test_dtypes_and_things_that_are_no_models(torch, zuko):
    mixed = zuko.flows.MAF(2, transforms=2, hidden_features=(8,))
    mixed.transform.transforms[0].double()
    with pytest.raises(TypeError, match=r"^model: expected parameters of one dtype, float32 or float64, got \["):
        convert.from_zuko(mixed)
    for function in (convert.from_zuko, convert.from_nflows, convert.from_normflows, convert.from_glasflow):
        with pytest.raises(TypeError, match=r"^model: expected a module of PyTorch, got list"):
            function([])
        with pytest.raises(TypeError, match=r"^model: expected a flow of \w+, got Linear"):
            function(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"^model: expected a flow of flowjax, got int"):
        convert.from_flowjax(3)
    with pytest.raises(TypeError, match=r"^model: expected an NFlowsFlow, .* got Linear"):
        convert.from_sbi(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"^model: expected a model of zuko, .*, got Linear"):
        hr.accelerate(torch.nn.Linear(2, 2))


def test_a_network_before_the_flow_is_not_converted_and_has_to_be_named(torch):
    transforms, flows = library("nflows.transforms"), library("nflows.flows")
    distributions = library("nflows.distributions")
    made = transforms.MaskedAffineAutoregressiveTransform(3, 8, context_features=2)
    net = torch.nn.Linear(5, 2)
    model = shaken(flows.Flow(made, distributions.StandardNormal([3]), embedding_net=net), 0)
    with pytest.raises(
        ValueError, match=r'^model\._embedding_net: .* torch\'s Linear, which stays .* embedding="outside"'
    ):
        convert.from_nflows(model)
    with pytest.raises(ValueError, match=r"^embedding: expected one of"):
        convert.from_nflows(model, embedding="beside")
    flow = convert.from_nflows(model, embedding="outside")
    x, context = torch.randn(9, 3), torch.randn(9, 5)
    with torch.no_grad():
        want, embedded = model.log_prob(x, context), net(context)
    np.testing.assert_allclose(flow.log_prob(x, embedded), want, rtol=1e-5, atol=1e-5)


def test_normalisation_that_has_seen_no_rows_is_refused(torch):
    nf = library("normflows")
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(2), [nf.flows.ActNorm((2,))])
    with pytest.raises(ValueError, match=r"^model\.flows\.0: expected no act norm that no rows have started"):
        convert.from_normflows(model)
    with pytest.raises(ValueError, match=r"^model\.flows\[0\]: expected one that has been started by its first rows"):
        convert.from_normflows(model.eval())


def test_a_converted_flow_is_a_flow(torch, tmp_path):
    flow = convert.from_zuko(shaken(zuko_flow(Draw(3, True), "NSF"), 3))
    flow.save(tmp_path / "flow.safetensors")
    x, log_prob = flow.sample_and_log_prob(50, context=np.zeros(flow.context, "float32"), seed=0)
    again, context = hr.load(tmp_path / "flow.safetensors"), np.zeros(flow.context, "float32")
    np.testing.assert_array_equal(again.log_prob(x, context), flow.log_prob(x, context))
    np.testing.assert_allclose(again.log_prob(x, context), log_prob, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("column", [None, 0, 2])
def test_one_column_of_data_that_is_wrong_is_found(column):
    """An error in one of three columns is found, which the median over all values would not detect."""
    flow = hr.MAF(3, transforms=1, hidden=(8,), dtype="float64", seed=1)

    def to_data(z, context):
        x = np.array(flow.to_data(z)[0])
        x[:2] += 1.0  # a few rows may differ by any amount
        if column is not None:
            x[:, column] += 1e-4
        return x

    wrong = pytest.raises(
        ValueError, match=r"^verify: expected the flow's rows of data to 1e-07, but they differ by up"
    )
    with contextlib.nullcontext() if column is None else wrong:
        verify_made(flow, lambda x, context: np.asarray(flow.log_prob(x)), to_data)


def test_a_quarter_of_the_compared_rows_and_contexts_lies_three_times_as_far_out():
    x, context = _verify.rows_of(hr.NSF(3, context=2, transforms=1, hidden=(4,), seed=0).astype("float64"))
    every = np.arange(len(x))
    for values in (x, context):
        spread = [np.abs(values[every % 4 == k]).mean() for k in (1, 3)]
        assert 2.0 < spread[1] / spread[0] < 4.5
