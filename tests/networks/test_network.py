"""Networks described layer by layer match the reference: values, gradients, files and errors, on every device."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cases
import gradients
import headrace as hr
import network_cases
import reference
from cuda_twins import Twin
from headrace import Layer, Network
from pairs import pairwise

CHANGES = {"as they are": None, "zeros": cases.pin_zeros, "dead units": cases.kill_units}
SIZES = (0, 1, 7, 8, 49, 97)

step_of = {"relu": gradients.KINKED_STEP, "leaky_relu": gradients.KINKED_STEP}


def step(network):
    return min(step_of.get(layer.activation, gradients.STEP) for layer in network)


# --- values -----------------------------------------------------------------------------------------------------------


@pairwise(
    name=network_cases.NETWORKS,
    change=CHANGES,
    reads__formula=[(reads, formula) for reads in cases.READS for formula in cases.FORMULAS],
    dtype=cases.DTYPES,
)
def test_both_directions_match_the_reference_at_every_batch_size(name, change, reads, formula, dtype):
    dense, network, joins = network_cases.made(name, change=CHANGES[change], dtype=dtype)
    subject = network_cases.subject(dense, network, joins, reads=reads, formula=formula)
    judge, library = subject.judge(subject.arrays), subject.library
    given, context = network_cases.rows_of(dense, max(SIZES), dtype)
    for direction in ("forward", "inverse"):
        value, log_det = getattr(judge, direction)(given, context)
        for n in SIZES:
            got = getattr(library, direction)(given[:n], context[:n])
            cases.assert_matches(got, (value[:n], log_det[:n]), given[:n], dtype, depth=16)


@pytest.mark.parametrize("name", network_cases.NETWORKS)
def test_one_context_for_all_rows_is_evaluated_once_and_gives_the_same(name, dtype):
    dense, network, joins = network_cases.made(name, dtype=dtype)
    subject = network_cases.subject(dense, network, joins)
    given, context = network_cases.rows_of(dense, 60, dtype)
    for direction in ("forward", "inverse"):
        want = getattr(subject.judge(subject.arrays), direction)(given, context[:1])
        cases.assert_matches(getattr(subject.library, direction)(given, context[:1]), want, given, dtype, depth=16)


def test_splines_of_a_residual_network_match_the_reference(dtype):
    name = "blocks before whose products stands the activation"
    dense, network, joins = network_cases.made(name, outputs=("width", "height", "derivative"), dtype=dtype)
    subject = network_cases.subject(dense, network, joins, map="rq_spline")
    given, context = network_cases.rows_of(dense, 50, dtype)
    cases.check_directions(subject.library, subject.judge(subject.arrays), given, context, dtype, depth=64)


def test_a_coupling_takes_any_network(dtype):
    """The reference of a coupling is made from its dense layers."""
    network = Network.residual((8, 8), "silu", context="gate")
    library = cases.randomise(hr.transforms.Coupling(5, [0, 3], network, context=2, dtype=dtype), 0.3)
    joins = list(zip(*library.context_to_dense(), strict=True))
    judge = reference.Coupling(
        reference.Network(*library.to_dense(), hidden=network_cases.hidden_of(network), joins=joins, context=2),
        5,
        (0, 3),
    )
    given, context = cases.rows(50, 5, dtype), cases.rows(50, 2, dtype, "context")
    cases.check_directions(library, judge, given, context, dtype, depth=16)


def test_no_bit_depends_on_threads_or_companions(dtype):
    flow = hr.MAF(6, residual=True, hidden=(24, 24), transforms=3, dtype=dtype)
    x = flow.sample(1000, seed=1)
    with hr.threads(1):
        want = flow.log_prob(x)
    with hr.threads(2):
        assert_array_equal(flow.log_prob(x), want)
    assert_array_equal(flow.log_prob(x[333:666]), want[333:666])


def test_a_row_that_is_not_finite_spoils_only_itself(dtype):
    dense, network, joins = network_cases.made("blocks that a context gates", dtype=dtype)
    library = network_cases.subject(dense, network, joins).library
    given, context = network_cases.rows_of(dense, 50, dtype)
    want = library.inverse(given, context)
    for place, value in (((3, 1), np.nan), ((20, 0), np.inf)):
        given[place] = value
    context[31, 1] = np.nan
    for got, clean in zip(library.inverse(given, context), want, strict=True):
        bad = np.isin(np.arange(50), [3, 20, 31])
        assert np.isnan(got[bad]).all()
        assert_array_equal(got[~bad], clean[~bad])


# --- gradients --------------------------------------------------------------------------------------------------------


@pairwise(name=network_cases.NETWORKS, change=CHANGES, reads=cases.READS, verb=gradients.TRANSFORM_VERBS, n=[1, 9, 70])
def test_gradients_match_differences(name, change, reads, verb, n):
    dense, network, joins = network_cases.made(name, change=CHANGES[change])
    subject = network_cases.subject(dense, network, joins, reads=reads)
    gradients.check(subject, verb, *network_cases.rows_of(dense, n), step=step(network))


@pytest.mark.long
@pytest.mark.parametrize("name", network_cases.NETWORKS)
def test_each_parameter_by_itself(name):
    dense, network, joins = network_cases.made(name, features=3)
    subject = network_cases.subject(dense, network, joins)
    gradients.check(subject, "inverse_vjp", *network_cases.rows_of(dense, 9), number_by_number=True, step=step(network))


@pairwise(name=network_cases.NETWORKS, reads=cases.READS, verb=gradients.TRANSFORM_VERBS)
def test_float32_gradients_are_those_of_float64(name, reads, verb):
    dense, network, joins = network_cases.made(name, dtype="float32")
    narrow = network_cases.subject(dense, network, joins, reads=reads).library
    rows = network_cases.rows_of(dense, 60, "float32")
    gradients.check_float32(narrow, narrow.astype("float64"), verb, *rows, depth=128)


# --- dropout ----------------------------------------------------------------------------------------------------------


def factors(network, n, seed, stream=2):
    """Return the factor of each float64 value, for each layer, by the definition from the words of Philox.

    Values have the line numbers of the core: a layer takes a multiple of 16 lines for sums, and as many again for
    values if another layer adds the sums.
    """
    added = {layer.adds for layer in network if layer.adds is not None}
    line, result = 0, []
    for i, layer in enumerate(network):
        first, line = line, line + -(-layer.units // 16) * 16
        if i in added and (layer.activation != "identity" or layer.dropout):
            first, line = line, line + -(-layer.units // 16) * 16
        words = reference.philox(seed, np.arange(n), first, layer.units, stream)
        uniform = (words + words * 2.0**-32 + 2.0**-33) * 2.0**-32
        result.append(np.where(uniform <= layer.dropout, 0.0, 1.0 / (1.0 - layer.dropout)) if layer.dropout else 1.0)
    return result


@pytest.mark.parametrize("reads", cases.READS)
def test_dropout_leaves_out_units_by_the_seed(reads):
    """Degrees grow with the unit, so that units of the core and of the caller have the same order."""
    network = Network([Layer(20, "silu", dropout=0.3), Layer(20, "relu", dropout=0.5), Layer(20, None, 0, dropout=0.1)])
    t = cases.randomise(hr.transforms.MaskedAutoregressive(5, network, reads=reads, dtype="float64"), 0.3)
    flow, x = hr.Flow([t]), cases.rows(100, 5, "float64")
    loss, gradient = flow.nll_and_grad(x, dropout=7)
    judged = reference.Network(*t.to_dense(), hidden=network_cases.hidden_of(network), factors=factors(network, 100, 7))
    judge = reference.Flow([reference.MaskedAutoregressive(judged, reads=reads)], reference.StandardNormal())
    np.testing.assert_allclose(loss, -judge.log_prob(x).mean(), rtol=1e-9)
    assert abs(loss - flow.nll_and_grad(x)[0]) > 1e-3
    assert abs(loss - flow.nll_and_grad(x, dropout=8)[0]) > 1e-4
    # The gradient of a loss with dropout agrees with differences of the loss along a direction.
    vector, direction = flow.parameters, cases.rng("dropout").standard_normal(gradient.size)
    h = 1e-6
    up, down = (flow.nll_and_grad(x, parameters=vector + s * h * direction, dropout=7)[0] for s in (1, -1))
    np.testing.assert_allclose(gradient @ direction, (up - down) / (2 * h), rtol=1e-5, atol=1e-7)


def test_dropout_is_the_same_for_any_threads_and_on_a_device(device, dtype):
    flow = cases.randomise(hr.MAF(4, hidden=(16, 16), residual=True, dropout=0.25, transforms=2, dtype=dtype), 0.3)
    x = cases.rows(300, 4, dtype)
    with hr.threads(1):
        loss, gradient = flow.nll_and_grad(x, dropout=3)
    with hr.threads(2):
        again = flow.nll_and_grad(x, dropout=3)
    assert loss == again[0]
    assert_array_equal(again[1], gradient)
    twin = Twin(device, flow)
    log_prob, on_device = twin.vjp(
        x, inverse=True, of_log_prob=True, row_scale=-1 / 300, wrt=("log_prob", "parameters"), dropout=3
    )
    np.testing.assert_allclose(-log_prob.mean(), loss, rtol=1e-5 if dtype == "float32" else 1e-12)
    scale = np.abs(gradient).max()
    assert np.abs(on_device - gradient).max() <= (1e-4 if dtype == "float32" else 1e-10) * scale


def test_a_row_drops_the_same_in_any_batch(core, dtype):
    """Dropout depends on a row's index in the table, and not on its index among the chosen rows."""
    flow = cases.randomise(hr.MAF(4, hidden=(16, 16), residual=True, dropout=0.25, transforms=2, dtype=dtype), 0.3)
    x = cases.rows(50, 4, dtype)

    def log_prob(index):
        out = np.empty(len(x) if index is None else len(index), dtype)
        unused = (None,) * 3  # the call has no context and no cotangents
        flow._program.gradient(True, True, x, index, *unused, 1.0, None, None, out, None, None, None, None, 5)
        return out

    index, whole = np.array([41, 3, 17, 3]), log_prob(None)
    np.testing.assert_allclose(log_prob(index), whole[index], rtol=1e-5 if dtype == "float32" else 1e-12)
    assert len(np.unique(whole[index])) == 3
    assert np.abs(whole - flow.log_prob(x)).max() > 1e-3  # dropout leaves out some units


def test_dropout_acts_in_a_fit_alone():
    x = cases.rows(500, 3, "float32")
    losses = {}
    for dropout in (0.0, 0.4, 0.99):
        flow = hr.MAF(3, hidden=(16,), transforms=2, dropout=dropout)
        again = copy.copy(flow)
        history = flow.fit(x, epochs=3, progress=False)
        assert again.fit(x, epochs=3, progress=False).train_loss == history.train_loss
        assert_array_equal(flow.log_prob(x), flow.log_prob(x))
        assert np.isfinite(flow.parameters).all()
        losses[dropout] = history.train_loss
    assert losses[0.0] != losses[0.4] != losses[0.99]


def test_files_keep_dropout():
    flow = hr.NSF(3, hidden=(8, 8), residual=True, dropout=0.25)
    assert [layer.dropout for layer in hr.from_bytes(hr.to_bytes(flow))[0].network] == [0, 0.25, 0, 0.25, 0]
    assert "dropout=0.25" in repr(flow)


# --- on a device ------------------------------------------------------------------------------------------------------


@pairwise(name=network_cases.NETWORKS, change=CHANGES, reads=cases.READS, dtype=cases.DTYPES)
def test_values_on_a_device(name, change, reads, dtype, device):
    dense, network, joins = network_cases.made(name, change=CHANGES[change], dtype=dtype)
    subject = network_cases.subject(dense, network, joins, reads=reads)
    given, context = network_cases.rows_of(dense, 40, dtype)
    judge = subject.judge(subject.arrays)
    cases.check_directions(Twin(device, subject.library), judge, given, context, dtype, depth=16)


@pairwise(name=network_cases.NETWORKS, change=CHANGES, reads=cases.READS, verb=gradients.TRANSFORM_VERBS)
def test_gradients_on_a_device(name, change, reads, verb, device):
    dense, network, joins = network_cases.made(name, change=CHANGES[change])
    subject = network_cases.subject(dense, network, joins, reads=reads)
    on_device = gradients.Subject(Twin(device, subject.library), subject.arrays, subject.judge)
    gradients.check(on_device, verb, *network_cases.rows_of(dense, 9), step=step(network))


# --- constructors, files ----------------------------------------------------------------------------------------------


def test_residual_flows_are_fitted():
    x = cases.rows(400, 3, "float32") @ np.array([[1, 0.5, 0], [0, 1, 0.5], [0, 0, 1]], "float32")
    for make in (hr.MAF, hr.IAF, hr.RealNVP, hr.NSF):
        flow = make(3, residual=True, hidden=(16, 16), transforms=2)
        assert [layer.adds for layer in flow[0].network] == [None, None, 0, None, 2]
        before = flow.log_prob(x).mean()
        flow.fit(x, epochs=5, progress=False)
        assert flow.log_prob(x).mean() > before


def test_fresh_blocks_change_their_inputs_little():
    """The last weights of a block are smaller, so that sums do not grow from block to block."""
    weights, biases, _ = hr.transforms.MaskedAutoregressive(
        4, Network.residual((64,) * 6, "relu"), dtype="float64"
    ).to_dense()
    x, sizes = cases.rows(200, 4, "float64"), []
    sums = x @ weights[0].T + biases[0]
    for i in range(1, len(weights) - 1, 2):
        sums = sums + np.maximum(np.maximum(sums, 0.0) @ weights[i].T, 0.0) @ weights[i + 1].T
        sizes.append(sums.std())
    assert len(sizes) == 6
    assert 1.0 < sizes[-1] / sizes[0] < 2.0


@pytest.mark.parametrize("name", network_cases.NETWORKS)
def test_files_keep_every_layer(name, tmp_path, dtype):
    dense, network, joins = network_cases.made(name, dtype=dtype)
    t = network_cases.subject(dense, network, joins).library
    given, context = network_cases.rows_of(dense, 20, dtype)
    t.save(tmp_path / "t.safetensors")
    for other in (hr.load(tmp_path / "t.safetensors"), pickle.loads(pickle.dumps(t))):
        assert other.network == network
        assert repr(other) == repr(t)
        for got, want in zip(other.inverse(given, context), t.inverse(given, context), strict=True):
            cases.assert_same_bits(got, want)
    for made in (
        hr.transforms.MaskedAutoregressive(3, network, context=2),
        hr.transforms.Coupling(3, [1], network, context=2),
    ):
        other = hr.from_bytes(hr.to_bytes(made))
        assert other.network == network
        assert_array_equal(other.parameters, made.parameters)


def test_a_plain_network_is_recognised_by_its_activation():
    """A plain network has the file of older versions, for both ways to describe the network."""
    by_argument = hr.MAF(3, hidden=(8, 9), activation="elu", last_activation="elu")
    described = hr.MAF(3, hidden=Network.plain((8, 9), "elu"))
    assert hr.to_bytes(by_argument) == hr.to_bytes(described)
    assert b'"network"' not in hr.to_bytes(by_argument)
    assert by_argument[0].network == Network.plain((8, 9), "elu")


def test_to_dense_inverts_from_dense():
    dense, network, joins = network_cases.made("blocks that a context gates", change=cases.pin_zeros)
    t = network_cases.subject(dense, network, joins).library
    weights, biases, masks = t.to_dense()
    context_weights, context_biases = t.context_to_dense()
    keywords = {"context_weights": context_weights, "context_biases": context_biases, "context": 2}
    again = hr.transforms.MaskedAutoregressive.from_dense(weights, biases, masks, network=t.network, **keywords)
    assert_array_equal(again.parameters, t.parameters)
    for (weight, bias), (w, b) in zip(joins, zip(context_weights, context_biases, strict=True), strict=True):
        assert_array_equal(w, weight)
        assert_array_equal(b, bias)
    for mask, given in zip(masks, dense.masks, strict=True):
        assert_array_equal(mask, given)


def test_named_parameters_of_layers_that_a_context_joins():
    t = hr.transforms.MaskedAutoregressive(3, Network([Layer(4), Layer(5, context="gate")]), context=2)
    names = [f"layers.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]
    assert list(t.named_parameters()) == ["layers.1.context.weight", "layers.1.context.bias", *names]
    value = np.full((5, 2), 0.25, "float32")
    t.set_parameter("layers.1.context.weight", value)
    assert_array_equal(t.named_parameters()["layers.1.context.weight"], value)
    assert t.n_parameters == sum(np.count_nonzero(mask) + len(mask) for mask in t._network.masks()) + 5 * (2 + 1)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Layer(0), "units: expected an integer from 1 to 16777216, got 0"),
        (lambda: Layer(3, "cosine"), "activation: expected"),
        (lambda: Layer(3, adds=-1), "adds: expected"),
        (lambda: Layer(3, context="multiply"), "context: expected"),
        (lambda: Layer(3, dropout=1.0), "dropout: expected a number from 0 and below 1"),
        (lambda: hr.MAF(3, dropout=-0.1), "dropout: expected a number from 0 and below 1"),
        (lambda: Layer(3, context_activation="tanh"), "context_activation: expected None without context"),
        (
            lambda: Network([Layer(3), Layer(4, adds=0)]),
            r"layers\[1\].adds: expected an earlier hidden layer of 4 units",
        ),
        (lambda: Network([Layer(3, adds=0)]), r"layers\[0\].adds: expected an earlier hidden layer of 3 units, got 0"),
        (
            lambda: Network([Layer(3), Layer(3, adds=0), Layer(3, adds=0)]),
            r"layers\[2\].adds: expected a layer that no other one adds, got 0",
        ),
        (lambda: hr.MAF(3, hidden=Network([Layer(4, context="gate")])), "expected none where no context is read"),
    ],
)
def test_impossible_networks_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Network("abc"), "layers: expected a list of Layer objects"),
        (lambda: Network([3]), r"layers\[0\]: expected a Layer, got"),
        (lambda: hr.MAF(3, hidden=Network.plain((4,)), activation="elu"), "activation: expected none beside a Network"),
        (lambda: hr.MAF(3, hidden=Network.plain((4,)), residual=True), "residual: expected none beside a Network"),
    ],
)
def test_wrong_descriptions_of_layers_are_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_layers_that_do_not_fit_the_arrays():
    dense, network, joins = network_cases.made("contexts that gate")
    weights, biases = [w for w, _ in joins], [b for _, b in joins]
    make = hr.transforms.MaskedAutoregressive.from_dense

    def refused(kind, message, **changed):
        keywords = {"network": network, "context": 2, "context_weights": weights, "context_biases": biases} | changed
        with pytest.raises(kind, match=message):
            make(*dense.arrays, **keywords)

    refused(ValueError, "network: expected layers of \\(9, 8\\) units", network=Network.plain((9, 9)))
    refused(TypeError, "network: expected a Network", network=(9, 8))
    refused(ValueError, "context_weights: expected one array for each of 2 layers, got 1", context_weights=weights[:1])
    refused(ValueError, r"context_weights\[0\]: expected shape .* 9 units", context_weights=weights[::-1])
    refused(ValueError, r"context_weights\[0\]: expected 2 columns", context_weights=[w[:, :1] for w in weights])
    refused(TypeError, r"context_biases\[0\]: expected float64", context_biases=[b.astype("float32") for b in biases])
    refused(TypeError, "activation: expected none beside network", activation="relu")


def test_sums_that_close_a_cycle_are_refused():
    """Unit 0 reads x[1] and goes to x[0]; if it added another unit, it would also read x[0]."""
    masks = [np.array([[1, 0], [0, 1]]), np.array([[0, 0], [0, 1]]), np.array([[0, 0], [0, 0], [1, 0], [1, 0]])]
    weights = [m.astype("float64") for m in masks]
    biases = [np.zeros(len(m)) for m in masks]
    fine = Network([Layer(2), Layer(2)])
    hr.transforms.MaskedAutoregressive.from_dense(weights, biases, masks, network=fine)
    masks[2] = np.array([[0, 1], [0, 1], [1, 0], [1, 0]])
    with pytest.raises(ValueError, match="depend on each other in a cycle"):
        hr.transforms.MaskedAutoregressive.from_dense(
            weights, biases, masks, network=Network([Layer(2), Layer(2, adds=0)])
        )


@pytest.mark.parametrize(
    "make",
    [
        lambda: hr.Layer(10**9),
        lambda: hr.MAF(3, hidden=(10**9,)),
        lambda: hr.Network.residual((10**9,)),
        lambda: hr.PlanarFlow(2, context=1, hidden=(10**9,)),
    ],
)
def test_layers_far_too_wide_are_refused(make):
    with pytest.raises(ValueError, match=r"(units|hidden\[0\]): expected an integer from 1 to 16777216, got 10{9}"):
        make()


def test_a_network_that_no_memory_holds_is_refused():
    """A network beyond all memory is refused before the system would end the process."""
    layers = [hr.Layer(2**20), hr.Layer(2**20)]
    for make in (lambda: hr.MAF(3, hidden=hr.Network(layers)), lambda: hr.NSF(3, coupling=True, hidden=(2**20, 2**20))):
        with pytest.raises(ValueError, match=r"hidden: expected a network whose weights fit in .* GiB, of layers of"):
            make()
