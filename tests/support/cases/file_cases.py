"""One flow or transform for each kind that a file may hold, for the tests of files and for tests/files/make.py."""

import numpy as np

import cases
import headrace as hr

ROWS = 20


def fitted(flow, *key):
    """A flow after a short fit with standardised data and context; its random weights are not near the identity."""
    x = 3.0 + 2.0 * cases.rows(200, flow.features, "float64", "fit", *key)
    context = 1.0 + 5.0 * cases.rows(200, flow.context, "float64", "fit context", *key) if flow.context else None
    flow.fit(x, context, epochs=1, progress=False)
    return cases.randomise(flow, 0.2, *key)


def foreign(features, dtype, **more):
    """An autoregression with dead units and zeros, so that no degrees make its masks, and with scales before shifts."""
    dense = cases.made(
        features,
        (6, 8),
        change=lambda masks, g: cases.kill_units(cases.pin_zeros(masks, g), g),
        outputs=("scale", "shift"),
        layout="blocked",
        **more,
    ).astype(dtype)
    return hr.transforms.MaskedAutoregressive.from_dense(
        *dense.arrays,
        outputs=dense.outputs,
        layout=dense.layout,
        context=dense.context,
        scale="softplus",
        slope=0.0123456789,
        formula="to_latent",
        reads="latent",
        activation="gelu",
    )


def separate_networks(dtype):
    """A coupling whose shift and scale come from separate networks, which are one network with blocks in its masks."""
    masks = [np.ones((8, 3), bool), np.kron(np.eye(2), np.ones((2, 4))) > 0]
    dense = cases.fill(masks, cases.rng("separate"), context=1).astype(dtype)
    return hr.transforms.Coupling.from_dense(
        *dense.arrays, features=4, passive=[3, 1], context=1, layout="blocked", scale="exp", activation="silu"
    )


def everything(dtype):
    """A flow with every kind of transform in one chain."""
    chain = [
        foreign(4, dtype, context=1),
        hr.transforms.Permutation([2, 0, 3, 1]),
        hr.transforms.Inverse(hr.transforms.Inverse(hr.transforms.Inverse(separate_networks(dtype)))),
        hr.transforms.Inverse(hr.transforms.Standardize([0.1, -0.2, 1e-3, 1 / 3], [0.7, 1.1, 2 / 3, 1.0])),
        hr.transforms.Coupling(4, [], (6,), map="additive", activation="tanh", context=1, dtype=dtype),
        hr.transforms.MaskedAutoregressive(
            4, (5,), map="rq_spline", bins=3, bound=4.5, order=[2, 3, 1, 0], dtype=dtype
        ),
        hr.transforms.MaskedAutoregressive(4, (), scale="sigmoid", reads="latent", activation="elu", dtype=dtype),
        hr.transforms.Standardize([1e6, 0.0, -3.0, 0.1], [1e3, 1.0, 0.3, 1e-3]),
    ]
    scale = (np.array([0.1]), np.array([3.0]))
    flow = hr.Flow(chain, hr.Logistic(4), dtype=dtype, standardize_context=scale)
    return cases.randomise(flow, 0.2, "everything")


def elementwise(dtype):
    """A flow of elementwise maps and rotations."""
    chain = [
        hr.transforms.Elementwise(3, map="dual_ascent", formula="to_latent", dtype=dtype),
        hr.transforms.Rotation.random(3, seed=1),
        hr.transforms.Inverse(
            hr.transforms.Elementwise(3, map="dual_ascent", formula="to_data", slope=0.01, dtype=dtype)
        ),
        hr.transforms.Elementwise(3, map="affine", scale="exp", dtype=dtype),
        hr.transforms.Inverse(hr.transforms.Rotation.random(3, seed=2)),
        hr.transforms.Elementwise(3, map="rq_spline", bins=4, bound=6.0, dtype=dtype),
    ]
    return cases.randomise(hr.Flow(chain, dtype=dtype), 0.2, "elementwise")


def turned(features, dtype):
    """A linear map whose matrix permutes coordinates and reverses orientation."""
    matrix = np.eye(features)[::-1] + 0.3 * cases.rng("turned").standard_normal((features, features))
    matrix[0] *= -np.sign(np.linalg.det(matrix))
    return hr.transforms.Linear.from_matrix(matrix, np.linspace(-1.0, 1.0, features), dtype=dtype)


def linear(dtype):
    """A chain with linear links and norms: a fit has initialised some of them from data; the last two are new."""
    links = [hr.transforms.ActNorm(3, dtype=dtype), hr.transforms.Linear(3, "random", seed=1, dtype=dtype)]
    flow = fitted(
        hr.Flow([*links, hr.transforms.Coupling(3, [1], (6,), dtype=dtype), turned(3, dtype), *links[:1]]), "linear"
    )
    return hr.Flow([*flow.transforms, hr.transforms.ActNorm(3, dtype=dtype), hr.transforms.Linear(3, dtype=dtype)])


def fixed_linear(dtype):
    """A flow of fixed linear maps: one of residual columns, and one with scales, signs, an order and a shift."""
    shear = np.eye(4)
    shear[2, [0, 3]], shear[1, 3] = [0.75, -1.25], 0.5
    matrix = np.eye(4)[[2, 0, 3, 1]] * [[-1.0], [0.5], [2.0], [1.0]] + 0.2 * cases.rng("fixed").standard_normal((4, 4))
    inner = hr.transforms.Linear.from_matrix(matrix, [0.5, 0.0, -1.0, 2.0], dtype="float64", trainable=False)
    chain = [
        inner,
        hr.transforms.Coupling(4, [1], (6,), dtype=dtype),
        hr.transforms.Standardize(np.zeros(4), [1.0, 0.5, 0.25, 1.0]),
    ]
    chain += [
        hr.transforms.Linear._shear(shear),
        hr.transforms.Standardize([1.0, 2.0, -3.0, 0.0], [2.0, 1.0, 0.5, 3.0]),
        hr.transforms.Inverse(inner),
    ]
    return cases.randomise(hr.Flow(chain), 0.2, "fixed linear")


def supported(dtype):
    """A fitted flow whose columns have bounds of every kind, with another `Support` inside the chain."""
    x = np.exp(0.5 * cases.rows(200, 4, "float64", "fit", "support"))
    x[:, 2] = x[:, 2] / (1.0 + x[:, 2])
    flow = hr.MAF(4, transforms=1, hidden=(7,), bounds=[(0, None), (None, 1e3), (0.0, 1.0), None], dtype=dtype)
    flow.fit(x, epochs=1, progress=False)
    inner = hr.transforms.Inverse(hr.transforms.Support([(-40.0, None), None, (-50.0, 60.0), None]))
    return hr.Flow([cases.randomise(flow, 0.2, "support")[:1][0], inner, *flow.transforms[1:]], flow.base)


def gaussianized(dtype):
    """A flow whose marginals are made normal at its data end, and again inside the chain."""
    maf = hr.MAF(3, transforms=1, hidden=(7,), dtype=dtype)
    outer = [
        hr.transforms.Gaussianize(*cases.curves(3, 9)),
        hr.transforms.Standardize([5.0, 0.0, -3.0], [2.0, 1.0, 0.5]),
    ]
    inner = hr.transforms.Inverse(hr.transforms.Gaussianize(*cases.curves(3, 4, "inner")))
    return hr.Flow([inner, cases.randomise(maf, 0.2, "gaussianize").transforms[0], *outer])


def splines(dtype):
    """A flow with each spline that has a least size of bins, on intervals of every kind."""
    chain = [
        hr.transforms.MaskedAutoregressive(3, (5,), map="rq_spline_nflows", bins=4, bound=3.0, dtype=dtype),
        hr.transforms.Coupling(
            3, [1], (5,), map="rq_spline_free", bins=3, bound=(-6.0, 5.0), min_bin=0.01, dtype=dtype
        ),
        hr.transforms.Elementwise(3, map="rq_spline_circular", bins=5, bound=(-np.pi, np.pi), dtype=dtype),
        hr.transforms.Elementwise(
            3, map="rq_spline_flowjax", bins=4, bound=(-4.0, 4.5), min_bin=2e-4, slope=0.01, dtype=dtype
        ),
    ]
    return cases.randomise(hr.Flow(chain, dtype=dtype), 0.2, "splines")


def halved_splines(dtype):
    """A flow of splines whose first and last bins have half the least size."""
    settings = {"map": "rq_spline_flowjax17", "bins": 4, "min_bin": 0.05, "dtype": dtype}
    chain = [
        hr.transforms.Coupling(3, [1], (5,), bound=3.0, **settings),
        hr.transforms.Elementwise(3, bound=(-4.0, 4.5), slope=0.01, **settings),
    ]
    return cases.randomise(hr.Flow(chain, dtype=dtype), 0.2, "halved splines")


def on_columns(dtype):
    """A flow with an `OnColumns` for each kind of transform that `OnColumns` accepts."""
    within = hr.transforms.Radial(2, context=1, hidden=(4,), dtype=dtype)
    chain = [
        hr.transforms.OnColumns(foreign(4, dtype, context=1), [4, 0, 3, 1], 5),
        hr.transforms.OnColumns(hr.transforms.Inverse(hr.transforms.Planar(3, seed=1, dtype=dtype)), [2, 4, 0], 5),
        hr.transforms.OnColumns(hr.transforms.Rotation.random(3, seed=1, block=2), [1, 3, 2], 5),
        hr.transforms.Inverse(hr.transforms.OnColumns(hr.transforms.OnColumns(within, [2, 0], 3), [3, 1, 0], 5)),
        hr.transforms.OnColumns(turned(3, dtype), [0, 2, 4], 5),
        hr.transforms.OnColumns(hr.transforms.Permutation([1, 2, 0]), [4, 1, 3], 5),
        hr.transforms.OnColumns(hr.transforms.ActNorm(2, dtype=dtype), [3, 2], 5),
        hr.transforms.OnColumns(
            hr.transforms.Elementwise(2, map="rq_spline", bins=3, bound=4.0, dtype=dtype), [1, 0], 5
        ),
        hr.transforms.OnColumns(hr.transforms.Coupling(4, [3, 1], (5,), dtype=dtype), [0, 2, 3, 4], 5),
        hr.transforms.Standardize([1.0, 0.0, -3.0, 0.1, 2.0], [2.0, 1.0, 0.3, 1.5, 1.0]),
    ]
    return cases.randomise(hr.Flow(chain, dtype=dtype), 0.2, "on columns")


def around(kind, dtype, *, context=0, **more):
    """A flow of four columns: two circles that shears join, and two others, one of which has a bound."""
    flow = kind(
        4,
        context=context,
        transforms=2,
        hidden=(5,),
        bounds=[None, None, None, (-20.0, None)],
        periodic=[(-np.pi, np.pi), None, (0.0, 24.0), None],
        dtype=dtype,
        **more,
    )
    return cases.randomise(flow, 0.2, "around")


def cut_open(dtype):
    """A dual ascent of three columns: a circle, an unbounded column and a bounded one."""
    y = cases.rows(80, 3, "float64", "ascent around")
    x = np.column_stack([np.mod(3.0 + 0.5 * y[:, 0] + np.pi, 2 * np.pi) - np.pi, y[:, 1], np.exp(y[:, 2])])
    ends = {"periodic": [(-np.pi, np.pi), None, None], "bounds": [None, None, (0.0, None)]}
    return hr.DualAscentFlow.notes(steps=2, **ends, dtype=dtype).fit(x, validation=0, progress=False)


def ascended(model, features=2):
    """The flow of a short ascent, which keeps all of its steps, because no held-out rows could prefer fewer steps."""
    x = 1.0 + 2.0 * cases.rows(60, features, "float64", "ascent")
    flow = model.fit(x, validation=0, progress=False)
    assert len(flow) == model.steps
    return flow


def on_normal(dtype, trainable):
    base = hr.Normal(3, [0.1, -5.0, 1e4], [0.3, 1.0, 1e3], trainable=trainable)
    flow = hr.Flow([hr.transforms.Coupling(3, [0], (6,), dtype=dtype)], base, dtype=dtype)
    return flow if not trainable else cases.randomise(flow, 0.2, "normal")


def ensemble(dtype):
    """An ensemble of members of different classes: the base of one has arrays, and the weight of one is 0."""
    flows = [
        fitted(hr.MAF(2, 1, transforms=1, hidden=(5,), dtype=dtype), "member"),
        fitted(hr.RealNVP(2, 1, transforms=2, hidden=(4,), base=hr.Normal(2), dtype=dtype), "another member"),
        hr.Flow([hr.transforms.Coupling(2, [0], (3,), context=1, dtype=dtype)], hr.Logistic(2)),
    ]
    return hr.Ensemble(flows, [1 / 3, 2.0, 0.0])


def on(base, dtype):
    """A flow on a base of three features; all parameters are random, including those of the base."""
    flow = hr.Flow([hr.transforms.Coupling(3, [0], (6,), dtype=dtype)], base, dtype=dtype)
    return cases.randomise(flow, 0.2, "on a base")


# Examples by name, each made from a dtype. A new kind of flow or transform needs a line here, and files in tests/files.
EXAMPLES = {
    "maf": lambda dtype: fitted(hr.MAF(3, transforms=2, hidden=(7, 8), dtype=dtype), "maf"),
    "maf-context": lambda dtype: fitted(hr.MAF(3, 2, transforms=2, hidden=(8,), scale="exp", dtype=dtype), "context"),
    "iaf": lambda dtype: fitted(hr.IAF(3, transforms=2, hidden=(8,), activation="softplus", dtype=dtype), "iaf"),
    "realnvp": lambda dtype: fitted(hr.RealNVP(3, 1, transforms=2, hidden=(8,), dtype=dtype), "realnvp"),
    "realnvp-one-feature": lambda dtype: fitted(hr.RealNVP(1, transforms=1, hidden=(4,), dtype=dtype), "one"),
    "nsf": lambda dtype: fitted(hr.NSF(2, transforms=2, hidden=(8,), bins=4, dtype=dtype), "nsf"),
    "nsf-coupling": lambda dtype: fitted(hr.NSF(3, transforms=2, hidden=(6,), coupling=True, dtype=dtype), "couplings"),
    "planar": lambda dtype: fitted(hr.PlanarFlow(3, transforms=3, dtype=dtype), "planar"),
    "planar-context": lambda dtype: fitted(
        hr.PlanarFlow(3, 2, 2, (7,), nonlinearity="leaky_relu", negative_slope=0.3, dtype=dtype), "planar context"
    ),
    "radial": lambda dtype: fitted(hr.RadialFlow(3, transforms=3, dtype=dtype), "radial"),
    "radial-context": lambda dtype: fitted(hr.RadialFlow(2, 2, 1, (7, 6), activation="silu", dtype=dtype), "context"),
    "planar-alone": lambda dtype: cases.randomise(hr.transforms.Planar(4, dtype=dtype), 0.5, "planar"),
    "radial-alone": lambda dtype: hr.transforms.Inverse(
        cases.randomise(hr.transforms.Radial(4, context=2, hidden=(5,), dtype=dtype), 0.5)
    ),
    "everything": everything,
    "normal": lambda dtype: on_normal(dtype, True),
    "normal-fixed": lambda dtype: on_normal(dtype, False),
    "base-alone": lambda dtype: hr.Flow([], hr.StandardNormal(2), dtype=dtype),
    "masked-alone": lambda dtype: foreign(4, dtype, context=2),
    "coupling-alone": lambda dtype: cases.randomise(
        hr.transforms.Coupling(4, [2, 0], (6,), dtype=dtype), 0.2, "coupling"
    ),
    "elementwise": elementwise,
    "elementwise-alone": lambda dtype: cases.randomise(
        hr.transforms.Elementwise(3, bins=5, bound=4.0, dtype=dtype), 0.3, "spline"
    ),
    "linear": linear,
    "linear-fixed": fixed_linear,
    "linear-alone": lambda dtype: hr.transforms.Inverse(cases.randomise(turned(4, dtype), 0.2, "linear")),
    "splines": splines,
    "halved-splines": halved_splines,
    "support": supported,
    "gaussianize": gaussianized,
    "gaussianize-alone": lambda dtype: hr.transforms.Gaussianize(*cases.curves(3, 9)),
    "student-t": lambda dtype: on(hr.StudentT(3, [1.0, 2.5, 40.0]), dtype),
    "student-t-fixed": lambda dtype: on(hr.StudentT(3, [0.7, 2.5, 1e6], trainable=False), dtype),
    "periodic": lambda dtype: cases.randomise(
        hr.NSF(
            3,
            transforms=1,
            hidden=(6,),
            bins=4,
            coupling=True,
            bounds=[None, None, (-20.0, None)],
            periodic=[(-np.pi, np.pi), None, None],
            dtype=dtype,
        ),
        0.2,
        "periodic",
    ),
    "on-columns": on_columns,
    "on-columns-alone": lambda dtype: hr.transforms.OnColumns(hr.transforms.Rotation.random(2, seed=1), [2, 0], 4),
    "periodic-maf": lambda dtype: around(hr.MAF, dtype, context=1),
    "periodic-iaf": lambda dtype: around(hr.IAF, dtype),
    "periodic-realnvp": lambda dtype: around(hr.RealNVP, dtype, link="random"),
    "periodic-nsf": lambda dtype: around(hr.NSF, dtype, bins=4, link="linear"),
    "periodic-planar": lambda dtype: around(hr.PlanarFlow, dtype),
    "periodic-radial": lambda dtype: around(hr.RadialFlow, dtype, context=1),
    "periodic-dual-ascent": cut_open,
    "uniform": lambda dtype: hr.Flow(
        [hr.transforms.Elementwise(2, bins=4, bound=1.0, dtype=dtype)], hr.Uniform(2), dtype=dtype
    ),
    "mixture": lambda dtype: on(hr.NormalMixture(3, 2, scale=0.5, seed=1), dtype),
    "mixture-fixed": lambda dtype: on(
        hr.NormalMixture(3, 2, loc=np.arange(6.0).reshape(2, 3), weights=[1 / 3, 0.5], trainable=False), dtype
    ),
    "support-alone": lambda dtype: hr.transforms.Support([(-10.0, None), (None, 9.5), (-20.0, 1 / 3 + 20.0), None]),
    "box": lambda dtype: cases.randomise(
        hr.NSF(2, transforms=2, hidden=(6,), bins=4, bounds=[(-1.1, 0.7), (-3.0, 5.0)], base="uniform", dtype=dtype),
        0.2,
        "box",
    ),
    "box-around": lambda dtype: cases.randomise(
        hr.RealNVP(
            3,
            1,
            transforms=2,
            hidden=(5,),
            bounds=[(-1.0, 1.0), None, (-30.0, 1 / 3)],
            periodic=[None, (0.0, 24.0), None],
            base="uniform",
            dtype=dtype,
        ),
        0.2,
        "box around",
    ),
    "box-alone": lambda dtype: hr.Flow(
        [hr.transforms.Support([(-10.0, 9.5), (-20.0, 1 / 3 + 20.0)], linear=True)], hr.Uniform(2), dtype=dtype
    ),
    "rotation-alone": lambda dtype: hr.transforms.Rotation.random(3, seed=1),
    "rotation-in-blocks": lambda dtype: hr.transforms.Inverse(hr.transforms.Rotation.random(8, seed=1, block=3)),
    "dual-ascent-in-blocks": lambda dtype: ascended(
        hr.DualAscentFlow.notes(steps=2, rotations="blocks", dtype=dtype), 35
    ),
    "dual-ascent": lambda dtype: ascended(hr.DualAscentFlow.notes(2.5, 3, kinks=2, dtype=dtype)),
    "ensemble": ensemble,
    "inverse-alone": lambda dtype: hr.transforms.Inverse(separate_networks(dtype)),
}


def inputs_of(module):
    """Rows and context for a flow or transform, in the range of its data."""
    generator = cases.rng("inputs", module.features, module.context)
    kind = np.dtype(module.dtype or np.float64)
    context = generator.standard_normal((ROWS, module.context)).astype(kind) if module.context else None
    x = generator.standard_normal((ROWS, module.features)).astype(kind)
    flow = module[0] if isinstance(module, hr.Ensemble) else module
    if isinstance(flow, hr.Flow):
        x = np.tanh(x) if isinstance(flow.base, hr.Uniform) else x
        x = flow.to_data(x, context)[0]  # likely rows under any standardisation
    return x, context


def results_of(module, x, context):
    """The results of a module for the given rows, by name, as float64."""
    if isinstance(module, hr.Ensemble):
        z = module[0].to_latent(x, context)[0]
        results = {"log_prob": module.log_prob(x, context), "spread": module.spread(x, context), "z": z}
    elif isinstance(module, hr.Flow):
        z, log_det = module.to_latent(x, context)
        results = {"log_prob": module.log_prob(x, context), "z": z, "log_det": log_det}
    else:
        z, log_det = module.inverse(x, context)
        x_of_x, log_det_of_x = module.forward(x, context)
        results = {"z": z, "log_det": log_det, "forward": x_of_x, "forward_log_det": log_det_of_x}
    return {name: np.asarray(array, np.float64) for name, array in results.items()}
