"""The library headrace itself, through its public interface."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from bench.peers.adapter import Model, UnsupportedError
from bench.peers.devices import Stopwatch, arrays, cupy_stopwatch, dry_stopwatch
from bench.workloads import BINS, BOUND, COUPLINGS, KERNELS, LEARNING_RATE, SPLINES, VECTORS, Workload

DISTRIBUTIONS = ("headrace", "numpy")


def setup(threads: int, device: str) -> None:
    """Import the library and set its threads."""
    import headrace

    headrace.set_num_threads(threads)
    if device == "cuda":
        try:
            headrace.Flow([], headrace.StandardNormal(1)).to("cuda")
        except headrace.CudaUnavailable as error:
            raise ImportError(str(error)) from None


def stopwatch(device: str) -> Stopwatch | None:
    """A stopwatch of the device; `adapter` describes it."""
    return {"cpu": lambda: None, "cuda": cupy_stopwatch, "dry": dry_stopwatch}[device]()


def build(workload: Workload, device: str, matmul: str = "exact") -> Model:
    """The named flow with random weights; every call of `sample` takes a new seed."""
    in_bf16 = matmul.startswith("bf16")
    if matmul != "exact" and ((device == "cpu") != in_bf16 or not workload.hidden):
        raise UnsupportedError(f"{matmul} is for networks on {'the CPU' if in_bf16 else 'a CUDA device'}")
    if workload.family in VECTORS:
        return _vector_flow(workload, device)
    if workload.family in KERNELS:
        made = {"coupling_map": _coupling_map, "dual_ascent": _dual_ascent, "ascent": _ascent, "wavenet": _wavenet}
        return made[workload.family](workload, device)
    flow = placed(network_flow(workload), device, matmul)
    seeds = itertools.count()
    trained = {"train": _optimiser_step(flow)} if workload.verb == "train" else {}
    return Model(
        log_prob=flow.log_prob,
        sample=lambda rows: flow.sample(rows, seed=next(seeds)),
        passes=1,
        **native(device),
        **trained,
    )


def network_flow(workload: Workload) -> Any:
    """The named flow on the CPU, with random weights."""
    import numpy as np

    import headrace as hr

    options: dict[str, Any] = {"transforms": workload.transforms, "hidden": workload.hidden, "dtype": "float32"}
    if workload.family in SPLINES:
        options.update(coupling=workload.family in COUPLINGS, bins=BINS, bound=BOUND)
        flow = hr.NSF(workload.features, **options)
    else:
        options["last_activation"] = "relu"  # as in the other libraries
        if workload.family == "maf_residual":
            options.update(residual=True, last_activation="identity")
        family = {"iaf": hr.IAF, "realnvp": hr.RealNVP}.get(workload.family, hr.MAF)
        flow = family(workload.features, **options)
    count = flow.parameters.size
    flow.parameters = np.float32(0.05) * np.random.default_rng(0).standard_normal(count, dtype=np.float32)
    return flow


def placed(flow: Any, device: str, matmul: str = "exact") -> Any:
    """The flow on the device."""
    if device == "cuda" or matmul.startswith("bf16"):
        return flow.to("cuda" if device == "cuda" else "cpu", matmul)
    return flow


def native(device: str) -> dict[str, Callable[[Any], Any]]:
    """Functions that make a model's arrays on the device, and read them."""
    library = arrays(device)
    return {
        "to_native": library.asarray,
        "to_numpy": library.asnumpy if device == "cuda" else library.asarray,
    }


def _coupling_map(workload: Workload, device: str) -> Model:
    """The affine map of `ops` with parameters for every element, which writes to existing memory."""
    import numpy as np

    import headrace as hr

    rows, columns, library = workload.rows, workload.features, arrays(device)
    numbers = np.random.default_rng(0).standard_normal((rows, columns, 2), dtype=np.float32)
    params = library.asarray(numbers)
    out = library.empty((rows, columns), "float32"), library.empty(rows, "float32")
    return Model(
        log_prob=_no_density,
        sample=_no_density,
        forward=lambda z: hr.ops.coupling(z, params, out=out),
        inverse=lambda x: hr.ops.coupling(x, params, out=out, direction="inverse"),
        **native(device),
    )


def _dual_ascent(workload: Workload, device: str) -> Model:
    """The model of a finished dual ascent with small steps."""
    flow = placed(ascent_chain(workload.features, workload.transforms), device)
    return Model(flow.log_prob, flow.sample, forward=flow.to_data, inverse=flow.to_latent, **native(device))


def _wavenet(workload: Workload, device: str) -> Model:
    """A network over time with fresh weights; a row of the arrays is a sequence of one value a step."""
    import headrace as hr

    flow = placed(hr.WaveNet(layers=workload.transforms, prediction=0), device)
    seeds = itertools.count()
    return Model(
        log_prob=lambda x: flow.log_prob(x.reshape(*x.shape, 1)),
        sample=lambda rows: flow.sample(rows, workload.features, seed=next(seeds)).reshape(rows, workload.features),
        **native(device),
    )


def _ascent(workload: Workload, device: str) -> Model:
    """The model of a dual ascent: a step of `Points`, or a fit of `DualAscentFlow.notes`."""
    import numpy as np

    import headrace as hr
    from headrace.ops._points import Points

    made: list[Points] = []
    step = a_step(np.random.default_rng(0), workload.features)

    def prepare(verb: str, x: Any) -> None:
        if verb == "step":
            made[:] = [Points(x)]

    def fit(x: Any) -> float:
        ascent = hr.DualAscentFlow.notes(steps=workload.transforms, patience=None)
        ascent.fit(x, validation=None, progress=False)
        return ascent.history.log_likelihood[-1]

    return Model(
        _no_density, _no_density, compile=prepare, step=lambda _x: made[0].step(*step), fit=fit, **native(device)
    )


def _no_density(_argument: Any) -> Any:
    raise UnsupportedError("a kernel without a density")


def a_step(rng: Any, features: int, block: int | None = None) -> tuple[Any, ...]:
    """The arguments of `Points.step`: small maps and a rotation, so that rows hardly move over many repeats."""
    import numpy as np

    import headrace as hr

    columns = [1e-3 * rng.standard_normal(features), rng.standard_normal(features), rng.uniform(0.05, 1, features)]
    maps = np.stack([columns[0], columns[1], columns[2] ** 2], axis=1)
    rotation = hr.transforms.Rotation.random(features, seed=1, block=block)
    order = None if block is None else rng.permutation(features).tolist()
    return maps, 0.0, list(rotation.blocks), np.zeros(features), maps[:, 1:].copy(), order


def ascent_chain(features: int, steps: int) -> Any:
    """A flow of this number of maps of dual ascent and rotations, all near the identity."""
    import numpy as np

    import headrace as hr

    rng, chain = np.random.default_rng(7), []
    for k in range(steps):
        map = hr.transforms.Elementwise(features, map="dual_ascent")
        map.parameters = 0.02 * rng.standard_normal(map.parameters.size).astype(np.float32)
        chain += [map, hr.transforms.Rotation.random(features, seed=k)]
    return hr.Flow(chain)


def _vector_flow(workload: Workload, device: str) -> Model:
    """A flow of planar or radial transforms far from the identity, so that an inverse has something to solve."""
    import numpy as np

    import headrace as hr

    kind = {"planar": hr.PlanarFlow, "radial": hr.RadialFlow}[workload.family]
    flow = kind(workload.features, workload.transforms, dtype="float32")
    noise = np.random.default_rng(0).standard_normal(flow.parameters.size, dtype=np.float32)
    flow.parameters = flow.parameters + np.float32(0.3) * noise
    flow, library = placed(flow, device), arrays(device)
    adam = hr.Adam(flow, learning_rate=LEARNING_RATE)

    def fit_to_normal(z: Any) -> float:
        x, log_det = flow.to_data(z)
        share = np.float32(1 / len(z))
        (gradient,) = flow.to_data_vjp(z, share * x, library.full(len(z), -share), wrt=("parameters",))
        adam.step(gradient)
        return float(0.5 * (x * x).sum(dtype=np.float64) - log_det.sum(dtype=np.float64)) / len(z)

    return Model(
        log_prob=flow.log_prob,
        sample=lambda rows: flow.sample(rows, seed=0),
        forward=flow.to_data,
        inverse=flow.to_latent,
        fit_to_normal=fit_to_normal,
        **native(device),
    )


def _optimiser_step(flow: Any) -> Callable[[Any], float]:
    """A function that takes one step of Adam and returns the loss before it."""
    import headrace as hr

    adam = hr.Adam(flow, learning_rate=LEARNING_RATE)

    def step(x: Any) -> float:
        loss, gradient = flow.nll_and_grad(x)
        adam.step(gradient)
        return loss

    return step


def fma_peak(seconds: float) -> float | None:
    """The measured GFLOP/s of multiply-add instructions on one thread (float32); None where the build has no such
    call."""
    try:
        from headrace._core import cpu

        return float(cpu.fma_peak(seconds))
    except (ImportError, AttributeError):
        return None


def facts() -> dict:
    """The facts that the library reports about itself."""
    import headrace

    return dict(headrace.info())
