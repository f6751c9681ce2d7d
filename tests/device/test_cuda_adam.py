"""Adam on a device, compared with the formula of AdamW, within the tolerances of the CPU's tests."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
import headrace as hr
from adam_cases import SETTINGS, STEPS, adamw, flow_of, matrices, numbers_that_count, random_gradients
from cuda_twins import Twin


def program_of(device, flow):
    """The flow's program on the device, with the flow's parameters."""
    return Twin(device, flow).program


class Adam:
    """The optimiser of a flow's program on a device, with the arguments of `hr.Adam`."""

    def __init__(self, device, flow, learning_rate=1e-3, *, betas=(0.9, 0.999), epsilon=1e-8, **settings):
        self.device, self.learning_rate = device, learning_rate
        self.program, self.flow = program_of(device, flow), flow
        kind = {"float32": device.module.AdamF32, "float64": device.module.AdamF64}[flow.dtype.name]
        decay, clip = settings.get("weight_decay", 0.0), settings.get("clip") or 0.0
        self.adam = kind(self.program, *betas, epsilon, decay, clip, settings.get("average") or 0.0)

    def step(self, gradient):
        given, norm = self.device.array(gradient), self.device.empty(1, "float64")
        self.adam.step(self.device.tuple(given), self.learning_rate, self.device.tuple(norm), self.device.stream)
        return float(self.device.numpy(norm)[0])

    @property
    def parameters(self):
        return self.program.host_weights()

    @property
    def averaged(self):
        out = self.device.empty(self.flow.parameters.shape, self.flow.dtype.name)
        self.adam.average(self.device.tuple(out), self.device.stream)
        return self.device.numpy(out)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("learning_rate", [1e-3, 0.1])
def test_steps_match_the_formula(device, name, learning_rate, dtype):
    flow, settings = flow_of(dtype), SETTINGS[name]
    gradients = random_gradients(flow)
    decay = settings.get("weight_decay", 0.0) * matrices(flow)
    history = adamw(flow.parameters, gradients, [learning_rate] * STEPS, **{**settings, "weight_decay": decay})
    adam = Adam(device, flow, learning_rate, **settings)
    for gradient, want in zip(gradients, history, strict=True):
        norm = adam.step(gradient)
        assert_allclose(norm, np.linalg.norm(gradient.astype(float)), rtol=1e-5)
        # The tolerances of the CPU's test (test_adam.py).
        allowed = (1e-5 if dtype == "float32" else 1e-6 if settings.get("clip") else 1e-12) * STEPS * learning_rate
        allowed += (1e-6 if dtype == "float32" else 1e-14) * np.abs(want)
        assert (np.abs(adam.parameters - want) <= allowed).all()


def test_steps_are_those_of_the_cpu(device, dtype):
    """A step on the device agrees with the CPU's up to rounding, although the norm is summed in many parts."""
    flow = cases.randomise(hr.MAF(9, transforms=2, hidden=(101, 70), dtype=dtype), 0.3)
    settings = {"clip": 2.0, "weight_decay": 0.1, "average": 0.9}
    ours, judge = Adam(device, flow, 0.01, **settings), hr.Adam(flow, 0.01, **settings)
    for gradient in random_gradients(flow, 3):
        assert_allclose(ours.step(gradient), judge.step(gradient), rtol=1e-12)
    for got, want in ((ours.parameters, flow.parameters), (ours.averaged, judge.averaged)):
        assert_allclose(got, want, rtol=0.0, atol=1e-6 if dtype == "float32" else 1e-14)


def test_the_learning_rate_can_be_changed_between_steps(device, dtype):
    flow = flow_of(dtype)
    gradients, rates = random_gradients(flow), np.linspace(1e-2, 1e-4, STEPS)
    history = adamw(flow.parameters, gradients, rates)
    adam = Adam(device, flow)
    for gradient, rate, want in zip(gradients, rates, history, strict=True):
        adam.learning_rate = rate
        adam.step(gradient)
        assert_allclose(adam.parameters, want, rtol=1e-6, atol=1e-6 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
def test_padding_and_masked_weights_stay_zero(device, weight_decay, dtype):
    flow = flow_of(dtype)
    adam, counts = Adam(device, flow, 0.1, weight_decay=weight_decay, average=0.5), numbers_that_count(flow)
    assert not counts.all()
    for _ in range(STEPS):
        adam.step(np.ones_like(flow.parameters))
        assert not adam.parameters[~counts].any()
    assert adam.parameters[counts].all()
    assert not adam.averaged[~counts].any()


@pytest.mark.parametrize("clip", [None, 2.0])
def test_the_same_bits_in_any_order_of_threads(device, clip, dtype):
    flow = hr.MAF(9, transforms=2, hidden=(101, 70), dtype=dtype)
    gradients = random_gradients(flow, 3)

    def run():
        adam = Adam(device, flow, 0.01, clip=clip, average=0.9)
        return np.array([adam.step(gradient) for gradient in gradients]), adam.parameters, adam.averaged

    first, *others = device.in_each_order(run, every=True)
    for other in others:
        for got, want in zip(other, first, strict=True):
            cases.assert_same_bits(got, want)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nothing_changes_where_the_norm_is_not_finite(device, bad, dtype):
    """A gradient whose norm is not finite changes neither weights nor counters: later steps are those of an optimiser
    that never received this gradient."""
    flow = flow_of(dtype)
    gradients = random_gradients(flow, 4)
    ours, judge = (Adam(device, flow, 0.01, average=0.9) for _ in range(2))
    spoiled = gradients[0].copy()
    spoiled[np.flatnonzero(numbers_that_count(flow))[-1]] = bad
    assert np.isnan(ours.step(spoiled)) if np.isnan(bad) else np.isinf(ours.step(spoiled))
    cases.assert_same_bits(ours.parameters, flow.parameters)
    cases.assert_same_bits(ours.averaged, flow.parameters)
    for gradient in gradients:
        ours.step(gradient)
        judge.step(gradient)
        ours.step(spoiled)
    cases.assert_same_bits(ours.parameters, judge.parameters)
    cases.assert_same_bits(ours.averaged, judge.averaged)


def test_the_running_mean_follows_the_parameters(device, dtype):
    flow, decay = flow_of(dtype), 0.7
    adam = Adam(device, flow, 0.05, average=decay)
    want = flow.parameters.astype(float)
    for t, gradient in enumerate(random_gradients(flow, 20), start=1):
        adam.step(gradient)
        want += (1.0 - min(decay, (1.0 + t) / (10.0 + t))) * (adam.parameters - want)
    assert_allclose(adam.averaged, want, rtol=0.0, atol=1e-5 if dtype == "float32" else 1e-13)


def test_a_huge_entry_does_not_make_the_norm_infinite(device):
    flow = flow_of("float32")
    gradient = np.zeros_like(flow.parameters)
    gradient[np.flatnonzero(numbers_that_count(flow))[0]] = 1e20
    adam = Adam(device, flow, 1e-3, clip=1.0)
    assert_allclose(adam.step(gradient), 1e20, rtol=1e-6)
    assert np.abs(flow.parameters - adam.parameters).max() > 0


def test_an_epsilon_below_the_smallest_number_causes_no_division_by_zero(device):
    flow = flow_of("float32")
    adam = Adam(device, flow, 1e-3, epsilon=1e-50)
    adam.step(np.zeros_like(flow.parameters))
    cases.assert_same_bits(adam.parameters, flow.parameters)


def test_a_gradient_at_any_address_of_its_dtype_is_read(device, dtype):
    flow = flow_of(dtype)
    (gradient,) = random_gradients(flow, 1)
    ours, judge = Adam(device, flow), Adam(device, flow)
    longer = device.array(np.concatenate([np.zeros(1, dtype), gradient]))
    ours.adam.step(device.tuple(longer[1:]), 1e-3, None, device.stream)
    judge.step(gradient)
    cases.assert_same_bits(ours.parameters, judge.parameters)


def test_a_program_without_weights_has_nothing_to_update(device, dtype):
    flow = hr.Flow([hr.transforms.Permutation([1, 0])], hr.StandardNormal(2), dtype=dtype)
    assert Adam(device, flow, clip=1.0).step(np.zeros(0, dtype)) == 0.0


def test_wrong_arguments_are_refused(device):
    flow = flow_of("float32")
    adam, size, stream = Adam(device, flow), flow.parameters.size, device.stream
    gradient = device.array(np.zeros(size, "f4"))
    wrong = [device.array(a) for a in (np.zeros(size + 1, "f4"), np.zeros((1, size), "f4"), np.zeros(size))]
    for bad in (*wrong, device.array(np.zeros(2 * size, "f4"))[::2]):
        with pytest.raises(ValueError, match="gradient: the vector has the wrong size or dtype"):
            adam.adam.step(device.tuple(bad), 1e-3, None, stream)
    for bad in (np.zeros(1, "f4"), np.zeros(2), np.zeros(())):
        with pytest.raises(ValueError, match="norm: expected one number of float64"):
            adam.adam.step(device.tuple(gradient), 1e-3, device.tuple(device.array(bad)), stream)
    with pytest.raises(ValueError, match="average: none is kept"):
        adam.adam.average(device.tuple(gradient), stream)
    keeps = Adam(device, flow, average=0.5)
    with pytest.raises(ValueError, match="out: expected a contiguous vector"):
        keeps.adam.average(device.tuple(device.array(np.zeros(size))), stream)
    with pytest.raises(ValueError, match="program: expected a program"):
        device.module.AdamF32(None, 0.9, 0.999, 1e-8, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_the_state_of_an_optimiser_is_copied_to_another(device, average, dtype):
    """The state is copied to an optimiser on the device and to one on the CPU, which then store equal values."""
    flow = flow_of(dtype)
    first, later = random_gradients(flow, 3), random_gradients(flow, 2)
    settings = {"learning_rate": 0.01, "clip": 1.0, "weight_decay": 0.1, "average": average}
    one, other = (Adam(device, flow, **settings) for _ in range(2))
    judge = hr.Adam(flow, **{**settings, "average": average or None})
    for gradient in first:
        one.step(gradient)
    memory = one.adam.memory()
    assert (memory[2] is None) == (average == 0.0)
    assert np.allclose(memory[3], [0.9**3, 0.999**3, 3.0], rtol=1e-15)
    other.program.set_host_weights(one.parameters)
    other.adam.set_memory(*memory)
    judge._core.set_memory(*memory)
    for ours, kept in zip(judge._core.memory(), memory, strict=True):
        assert (ours is None) == (kept is None)
        assert ours is None or (ours == kept).all()
    for gradient in later:
        assert one.step(gradient) == other.step(gradient)
    cases.assert_same_bits(one.parameters, other.parameters)
    if average:
        cases.assert_same_bits(one.averaged, other.averaged)
    with pytest.raises(ValueError, match="memory: a vector has the wrong size or dtype"):
        other.adam.set_memory(memory[0][1:], *memory[1:])
    with pytest.raises(ValueError, match="memory: expected an average"):
        other.adam.set_memory(*memory[:2], memory[0] if average == 0.0 else None, memory[3])


# --- cases that only the emulation detects ----------------------------------------------------------------------------


def test_a_step_takes_no_memory_and_does_not_wait(emu):
    flow = flow_of("float32")
    adam, (gradient,) = Adam(emu, flow, clip=1.0, average=0.5), random_gradients(flow, 1)
    adam.step(gradient)
    emu.module.log()
    adam.step(gradient)
    assert {call for call, _ in emu.module.log()} <= {"launch", "cudaEventRecord", "cudaStreamWaitEvent"}


def test_memory_is_given_back(emu):
    before = emu.module.allocated()
    adam = Adam(emu, flow_of("float32"), average=0.5)
    assert emu.module.allocated() > before
    del adam
    assert emu.module.allocated() == before
    for missing in range(1, 4):
        emu.module.fail_allocation(0)
        program = program_of(emu, flow_of("float32"))
        emu.module.fail_allocation(missing)
        with pytest.raises(MemoryError, match="device memory"):
            emu.module.AdamF32(program, 0.9, 0.999, 1e-8, 0.0, 0.0, 0.5)
        del program
        assert emu.module.allocated() == before
