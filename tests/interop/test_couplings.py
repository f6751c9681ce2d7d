"""``headrace.torch.coupling`` and ``headrace.jax.coupling``: maps whose parameters a network of the caller computes."""

import numpy as np
import pytest

import cases
import headrace as hr
import map_cases
from headrace._core import cpu

MAPS = {
    "affine": 2,
    "additive": 1,
    "rq_spline": 14,
    "rq_spline_circular": 15,
    "rq_spline_nflows": 14,
    "logistic_mixture": 9,
}
SHAPES = [((3,), (3,)), ((3,), ()), ((), ()), ((2, 3), (3,)), ((2, 3), (2, 1)), ((0,), ())]
every_map = pytest.mark.parametrize("map", MAPS)
every_direction = pytest.mark.parametrize("direction", map_cases.JUDGES)
every_shape = pytest.mark.parametrize(("leading", "shared"), SHAPES, ids=str)


def batch(leading, shared, map="affine", dtype="float64"):
    draw = cases.rng("own network", *leading, map).standard_normal
    arrays = draw((*leading, 2)), draw((*shared, 2, MAPS[map])), draw((*leading, 2)), draw(leading)
    return tuple(np.asarray(array, dtype) for array in arrays)


class TestTorch:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    @pytest.fixture
    def coupling(self, torch):
        import headrace.torch

        return headrace.torch.coupling

    @every_map
    @every_direction
    @pytest.mark.parametrize(("leading", "shared"), SHAPES[:-1], ids=str)  # gradcheck refuses empty results
    def test_gradients_match_differences(self, torch, coupling, map, direction, leading, shared):
        given = [torch.tensor(a, requires_grad=True) for a in batch(leading, shared, map)[:2]]
        call = lambda value, params: coupling(value, params, map, direction=direction)  # noqa: E731
        assert torch.autograd.gradcheck(call, given, atol=1e-6)

    @every_direction
    @every_shape
    def test_bits_are_those_of_ops(self, torch, coupling, direction, leading, shared, dtype):
        value, params, by_value, by_log_det = batch(leading, shared, "rq_spline", dtype)
        given = [torch.tensor(a, requires_grad=True) for a in (value, params)]
        keywords = {"map": "rq_spline", "bound": 3.0, "min_bin": 1e-2}
        out = coupling(*given, direction=direction, **keywords)
        for got, want in zip(out, map_cases.KERNELS[direction](value, params, **keywords), strict=True):
            cases.assert_same_bits(got.detach().numpy(), want)
        torch.autograd.backward(out, [torch.tensor(by_value), torch.tensor(by_log_det)])
        want = hr.ops.coupling_vjp(value, params, by_value, by_log_det, direction=direction, **keywords)
        for tensor, expected in zip(given, want, strict=True):
            cases.assert_same_bits(tensor.grad.numpy(), expected)

    @pytest.mark.parametrize("leading", [(), (3,), (2, 3), (0,)], ids=str)
    @every_direction
    @every_map
    def test_the_shorter_path_has_the_bits_of_the_longer_one(
        self, torch, coupling, direction, leading, map, monkeypatch
    ):
        arrays = [torch.tensor(a) for a in batch(leading, leading, map)]
        arrays[0] = arrays[0].repeat_interleave(2, dim=-1)[..., ::2]  # the values are strided, so that they are copied
        found = []
        for _ in range(2):
            value, params = (a.detach().requires_grad_() for a in arrays[:2])
            out = coupling(value, params, map, direction=direction)
            torch.autograd.backward(out, arrays[2:])
            with torch.no_grad():
                found.append([*out, *coupling(value, params, map, direction=direction), value.grad, params.grad])
            shorter = "_RunAtOnce" in type(out[0].grad_fn).__name__
            assert shorter == (len(found) == 1)
            monkeypatch.setattr(hr.torch.couplings, "_ready", lambda *a: None)
        for got, want in zip(*found, strict=True):
            assert torch.equal(got, want)

    def test_gradients_that_are_negated_lazily(self, torch, coupling):
        value, params, grad, grad_row = (torch.tensor(a) for a in batch((3,), (3,)))
        params.requires_grad_()
        lazy = torch.complex(-grad, -grad).conj().imag
        assert lazy.is_neg()
        found = [torch.autograd.grad(coupling(value, params), params, (one, grad_row))[0] for one in (grad, lazy)]
        assert torch.equal(*found)

    def test_addresses_are_checked(self):
        ready = cpu.ReadyCoupling("affine", "exp", 1e-3, 5.0, 2, False, 1, 2)
        ready.run(False, 0, 0, 0, 0, 0)
        memory = np.zeros(8)
        at = memory.ctypes.data
        for first in (0, at + 1):
            with pytest.raises(ValueError, match="coupling: expected aligned arrays"):
                ready.run(True, 1, first, at + 8, at + 24, at + 32)

    def test_settings_are_checked_on_the_shorter_path(self, torch, coupling):
        value, params = torch.zeros(3, 2), torch.zeros(3, 2, 14)
        coupling(value, params, "rq_spline", bound=1, bins=5)
        for wrong in ({"bins": 5.0}, {"bins": True}, {"bound": [2.0, 1.0]}, {"width": 3}):
            with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
                coupling(value, params, "rq_spline", **wrong)
        with pytest.raises(ValueError, match=r"params: expected shape \(3, 2, 11\)"):
            coupling(value, params, "rq_spline", bins=4)

    def test_strided_arguments_are_copied_and_one_result_may_be_used(self, torch, coupling):
        both = torch.tensor(batch((5,), (5,))[1], requires_grad=True)  # shift and raw scale of two elements
        value = torch.randn(2, 5, dtype=torch.float64).T
        assert not value.is_contiguous()
        assert not both.transpose(1, 2).is_contiguous()
        call = lambda p: coupling(value, p.transpose(1, 2))[1]  # noqa: E731
        assert torch.autograd.gradcheck(call, (both,))

    @pytest.mark.parametrize("kind", ["bfloat16", "float16"])
    @every_direction
    def test_autocast_has_the_values_of_float32(self, torch, coupling, direction, kind):
        """Parameters are in half precision, like those of a layer under autocast; the backward pass runs outside of
        autocast."""
        value, inputs = (torch.tensor(a, dtype=torch.float32) for a in batch((5,), (5,))[::2])
        layer = torch.nn.Linear(2, 4)
        with torch.autocast("cpu", dtype=getattr(torch, kind)):
            params = layer(inputs).reshape(5, 2, 2)
            out = coupling(value, params, direction=direction)
        assert params.dtype == getattr(torch, kind)
        want = coupling(value, params.float(), direction=direction)
        loss = [pair[0].sum() + pair[1].sum() for pair in (out, want)]
        gradients = [torch.autograd.grad(one, layer.weight, retain_graph=True)[0] for one in loss]
        for a, b in zip((*out, gradients[0]), (*want, gradients[1]), strict=True):
            assert a.dtype == torch.float32
            assert torch.equal(a, b)
        with pytest.raises(TypeError, match=r"params: expected dtype float32 or float64, got torch.*params\.float\(\)"):
            coupling(value, params)

    def test_sparse_tensors_are_refused(self, torch, coupling):
        value, params = (torch.tensor(a) for a in batch((3,), (3,))[:2])
        for name, given in (("value", (value.to_sparse(), params)), ("params", (value, params.to_sparse()))):
            with pytest.raises(TypeError, match=rf"^{name}: expected a dense tensor, .*; call {name}\.to_dense"):
                coupling(*given)

    @pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0), (1, 1)], ids=str)
    @every_direction
    def test_examples_of_vmap_are_rows_of_one_call(self, torch, coupling, direction, dims, monkeypatch):
        value, params, *_ = (torch.tensor(a) for a in batch((3, 4), (3, 1)))
        value, params = value.movedim(0, dims[0] or 0), params[:, 0].movedim(0, dims[1] or 0)
        value, params = (t if d is not None else t[0] for t, d in zip((value, params), dims, strict=True))

        def loss(params, value):
            out, log_det = coupling(value, params, direction=direction)
            return (out**2).sum() + log_det.sum()

        def pick(tensor, dim, i):
            return tensor if dim is None else tensor.select(dim, i)

        each = [torch.func.grad(loss, (0, 1))(pick(params, dims[1], i), pick(value, dims[0], i)) for i in range(3)]
        calls = []
        run = hr.torch.couplings._couplings.run
        monkeypatch.setattr(hr.torch.couplings._couplings, "run", lambda *a, **k: calls.append(1) or run(*a, **k))
        found = torch.func.vmap(torch.func.grad(loss, (0, 1)), in_dims=dims[::-1])(params, value)
        assert len(calls) == 1
        for i, want in enumerate(each):
            for got, expected in zip(found, want, strict=True):
                assert torch.allclose(got[i], expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.filterwarnings("ignore")  # PyTorch's compiler warns about its graphs
    @pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.nightly)])
    @pytest.mark.parametrize("map", ["affine", "rq_spline_nflows"])
    def test_one_graph_of_the_compiler_has_the_same_bits(self, torch, coupling, map, backend):
        """The graph has both passes, calls that use one result or both, shared parameters, and any number of rows."""
        torch._dynamo.reset()
        keywords = {"direction": "inverse"} | ({"bound": (-3.0, 4.0)} if map != "affine" else {"bound": 3})

        def call(value, params):
            out, log_det = coupling(2.0 * value, params.transpose(0, 0), map, **keywords)
            each = torch.func.vmap(lambda p: coupling(value, p, map)[1].sum())(torch.stack([params, 2.0 * params]))
            return out.square().sum() - log_det.sum(), coupling(value, params, map)[1], each

        compiled = torch.compile(call, backend=backend, fullgraph=True, dynamic=True)
        for leading, shared in (((3,), (3,)), ((5,), ()), ((2, 3), (2, 1))):
            given = [torch.tensor(a, requires_grad=True) for a in batch(leading, shared, map)[:2]]
            found = []
            for function in (compiled, call):
                loss, log_det, each = function(*given)
                total = loss + log_det.sum() + each.prod()
                found.append((loss, log_det, each, *torch.autograd.grad(total, given)))
            # Inductor may add the tens of float64 terms of a sum in any order; log-determinants come from headrace.
            tolerance = 1e-12 if backend == "inductor" else 0.0
            for result, wanted in zip(*found, strict=True):
                torch.testing.assert_close(result, wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max()))
            assert torch.equal(found[0][1], found[1][1])

    @pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
    def test_exported_and_traced_graphs_have_gradients(self, torch, coupling):
        class Layer(torch.nn.Module):
            def forward(self, value, params):
                return coupling(value, params, "rq_spline", bound=[-3.0, 3.0])

        value, params, by_value, by_log_det = (torch.tensor(a) for a in batch((3,), (), "rq_spline"))
        params.requires_grad_()
        want = Layer()(value, params)
        (want_params,) = torch.autograd.grad(want, params, (by_value, by_log_det))
        (by_log_det_alone,) = torch.autograd.grad(Layer()(value, params)[1], params, by_log_det)
        exported = torch.export.export(Layer(), (value, params)).module()
        traced = torch.jit.trace(Layer(), (value, params))
        for graph in (exported, traced):
            out = graph(value, params)
            assert all(torch.equal(a, b) for a, b in zip(out, want, strict=True))
            (found,) = torch.autograd.grad(out, params, (by_value, by_log_det), create_graph=True)
            assert torch.equal(found, want_params)
            with pytest.raises(RuntimeError, match="headrace gives first derivatives"):
                found.sum().backward()
            assert torch.equal(torch.autograd.grad(graph(value, params)[1], params, by_log_det)[0], by_log_det_alone)

    @pytest.mark.filterwarnings("ignore")  # opcheck warns about itself
    def test_the_operators_keep_the_rules_of_pytorch(self, torch):
        import headrace.torch  # noqa: F401

        value, params, *grads = (torch.tensor(a, requires_grad=True) for a in batch((3,), (), "affine"))
        how = "affine", "exp", 1e-3, [5.0], None, 1e-3, False
        torch.library.opcheck(torch.ops.headrace.coupling.default, (value, params, *how))
        given = (t.detach() for t in (value, params, *grads))
        torch.library.opcheck(torch.ops.headrace.coupling_vjp.default, (*given, *how))

    @pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # PyTorch warns at its first jvp
    def test_forward_mode_and_second_derivatives_are_refused(self, torch, coupling):
        value, params, *_ = (torch.tensor(a, requires_grad=True) for a in batch((3,), (3,)))
        (gradient,) = torch.autograd.grad(coupling(value, params)[0].sum(), params, create_graph=True)
        with pytest.raises(RuntimeError, match="headrace gives first derivatives"):
            gradient.sum().backward()
        strided = [torch.stack((t, t), -1).detach()[..., 0].requires_grad_() for t in (value, params)]
        (gradient,) = torch.autograd.grad(coupling(*strided)[0].sum(), strided[0], create_graph=True)
        with pytest.raises(RuntimeError, match="headrace gives first derivatives"):
            gradient.sum().backward()
        with pytest.raises(RuntimeError, match="forward mode was asked for"):
            torch.func.jvp(lambda v: coupling(v, params.detach())[0], (value.detach(),), (value.detach(),))
        with pytest.raises(TypeError, match="params: expected a PyTorch tensor, got numpy"):
            coupling(value, params.detach().numpy())
        with pytest.raises(TypeError, match="params: expected dtype float64, got"):
            coupling(value, params.float())
        with pytest.raises(
            ValueError, match=r"params: expected shape \(3, 2, 2\), or \(2, 2\) for all rows, got \(4, 2"
        ):
            coupling(value, torch.zeros(4, 2, 2, dtype=torch.float64))
        with pytest.raises(ValueError, match="direction: expected"):
            coupling(value, params, direction="up")


class TestJax:
    @pytest.fixture
    def jax(self):
        jax = pytest.importorskip("jax")
        before = jax.config.jax_enable_x64
        jax.config.update("jax_enable_x64", True)
        yield jax
        jax.config.update("jax_enable_x64", before)

    @pytest.fixture
    def coupling(self, jax):
        import headrace.jax

        return headrace.jax.coupling

    @pytest.fixture
    def called_back(self, jax, monkeypatch):
        """Simulate a platform without compiled calls."""
        from headrace.jax import _couplings as _couplings_jax

        jax.clear_caches()
        monkeypatch.setattr(_couplings_jax, "_WITH_HANDLERS", ())
        yield
        jax.clear_caches()

    @every_direction
    @every_shape
    def test_bits_are_those_of_ops(self, jax, coupling, direction, leading, shared, dtype):
        self.compare_bits(jax, coupling, direction, batch(leading, shared, "rq_spline_nflows", dtype))

    @pytest.mark.usefixtures("called_back")
    @every_direction
    @pytest.mark.parametrize(("leading", "shared"), SHAPES[:3], ids=str)
    def test_bits_are_those_of_ops_where_python_is_called(self, jax, coupling, direction, leading, shared, dtype):
        self.compare_bits(jax, coupling, direction, batch(leading, shared, "rq_spline_nflows", dtype))

    @every_map
    @every_direction
    def test_bits_of_every_map_are_those_of_ops(self, jax, coupling, map, direction, dtype):
        given = batch((2, 3), (3,), map, dtype)
        for scale in ("soft_clamp", "exp", "softplus", "sigmoid") if map == "affine" else ("soft_clamp",):
            self.compare_bits(jax, coupling, direction, given, map=map, scale=scale, bound=3, slope=0.01)

    @every_direction
    @pytest.mark.parametrize("shared", [(), (7, 1), (1, 9000)], ids=str)
    def test_bits_of_many_rows_are_those_of_ops(self, jax, coupling, direction, shared, dtype):
        """Results of 9000 rows, which exceed a block of repeated shared parameters, have the bits of `ops`."""
        self.compare_bits(jax, coupling, direction, batch((7, 9000), shared, "rq_spline_nflows", dtype))

    def compare_bits(self, jax, coupling, direction, given, **keywords):
        value, params, *grads = given
        keywords = keywords or {"map": "rq_spline_nflows", "bound": [-3.0, 4.0]}

        @jax.jit
        def both(value, params, *grads):
            out, pull = jax.vjp(lambda *a: coupling(*a, direction=direction, **keywords), value, params)
            return out, pull(tuple(grads))

        out, found = both(value, params, *grads)
        bound = keywords["bound"]
        of_ops = keywords | {"bound": tuple(bound) if isinstance(bound, list) else bound}
        for got, want in zip(out, map_cases.KERNELS[direction](value, params, **of_ops), strict=True):
            cases.assert_same_bits(np.asarray(got), want)
        want = hr.ops.coupling_vjp(value, params, *grads, direction=direction, **of_ops)
        for got, expected in zip(found, want, strict=True):
            cases.assert_same_bits(np.asarray(got), expected)

    @pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0), (1, 1)], ids=str)
    @every_direction
    def test_examples_of_vmap_are_rows_of_one_call(self, jax, coupling, direction, dims):
        value, params, *_ = batch((3, 4), (3, 1))
        value, params = np.moveaxis(value, 0, dims[0] or 0), np.moveaxis(params[:, 0], 0, dims[1] or 0)
        value, params = (t if d is not None else t[0] for t, d in zip((value, params), dims, strict=True))

        def loss(params, value):
            out, log_det = coupling(value, params, direction=direction)
            return (out**2).sum() + log_det.sum()

        def pick(array, dim, i):
            return array if dim is None else np.take(array, i, dim)

        each = [jax.grad(loss, (0, 1))(pick(params, dims[1], i), pick(value, dims[0], i)) for i in range(3)]
        mapped = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), in_axes=dims[::-1])).trace(params, value)
        text = mapped.lower(lowering_platforms=("cpu",)).as_text()
        assert text.count("@headrace_coupling_backward_float64") == 1
        assert "callback" not in text
        assert "while" not in text
        found = mapped.lower().compile()(params, value)
        for i, want in enumerate(each):
            for got, expected in zip(found, want, strict=True):
                np.testing.assert_allclose(got[i], expected, rtol=1e-12, atol=1e-12)

    def test_maps_inside_of_each_other_and_scan(self, jax, coupling):
        value, params, *_ = batch((2, 3, 4), (3, 4))
        want = hr.ops.coupling(value, params)
        inner = jax.vmap(coupling)  # vmap over the second axis of the values, and the first axis of the parameters
        for call in (jax.vmap(inner, in_axes=(0, None)), jax.jit(jax.vmap(inner, in_axes=(0, None)))):
            for got, expected in zip(call(value, params), want, strict=True):
                cases.assert_same_bits(np.asarray(got), expected)
        _, rows = jax.lax.scan(lambda carry, v: (carry, coupling(v, params)), 0, value)
        cases.assert_same_bits(np.asarray(rows[0]), want[0])

    def test_forward_mode_and_second_derivatives_are_refused(self, jax, coupling):
        value, params, *_ = batch((3,), (3,))
        loss = lambda v: (coupling(v, params)[0] ** 2).sum()  # noqa: E731
        with pytest.raises(NotImplementedError, match="a second derivative of a coupling: only first"):
            jax.grad(lambda v: jax.grad(loss)(v).sum())(value)
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jvp(loss, (value,), (value,))
        with pytest.raises(TypeError, match="params: expected dtype float64, got"):
            coupling(value, params.astype("float32"))
        with pytest.raises(TypeError, match="value: expected an array of JAX or NumPy, got"):
            coupling(value.tolist(), params)
        with pytest.raises(
            ValueError, match=r"params: expected shape \(3, 2, 2\), or \(2, 2\) for all rows, got \(4, 2"
        ):
            jax.jit(coupling)(value, np.zeros((4, 2, 2)))
        with pytest.raises(ValueError, match="slope: expected"):
            coupling(value, params, slope=-1.0)
        jax.config.update("jax_enable_x64", False)
        with pytest.raises(ValueError, match="value: expected a dtype that JAX can hold"):
            coupling(value, params)

    def test_the_message_of_ops_inside_of_jit_names_it(self, jax):
        value, params, *_ = batch((3,), (3,))
        with pytest.raises(
            TypeError, match=r"value: expected a JAX array with numbers, got a tracer.* headrace\.jax\.coupling"
        ):
            jax.jit(hr.ops.coupling)(value, params)
