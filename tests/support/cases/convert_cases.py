"""Models of other libraries for the tests of converters: those that docs/convert.md lists as convertible, and others.

Models are named as in the tables of docs/convert.md. A maker takes a `Draw`, whose random values choose sizes,
options and orders, and returns a model whose parameters differ from their initial values, unless converters refuse the
model.
"""

import functools
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest


def library(name):
    """Import a module without its warnings; the test is skipped where the module is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = set(sys.modules)
        module = pytest.importorskip(name, reason=f"{name} is not installed", exc_type=ImportError)
    if "torch" in set(sys.modules) - before:
        sys.modules["torch"].manual_seed(0)  # tests/conftest.py seeds PyTorch before later tests
    return module


@dataclass
class Draw:
    """The random choices from which a maker builds a model, such as its numbers of features, units and transforms."""

    seed: int
    context: bool

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.features = int(self.rng.integers(2, 7))
        self.columns = int(self.rng.integers(1, 4)) if self.context else 0
        self.units = int(self.rng.integers(7, 20))
        self.bins = int(self.rng.integers(2, 10))
        self.bound = float(self.rng.uniform(1.5, 6.0))
        self.transforms = int(self.rng.integers(1, 4))

    def one(self, *options):
        return options[int(self.rng.integers(len(options)))]

    def orders(self):
        return [self.rng.permutation(self.features).tolist() for _ in range(self.transforms)]


def shaken(model, seed, size=0.12):
    """Change a PyTorch model's initial parameters, and give its batch norms moments of random rows."""
    torch = library("torch")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator).to(parameter)
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
            if name.endswith("data_dep_init_done"):
                buffer.fill_(1.0)
    return model.eval()


# ---- zuko ------------------------------------------------------------------------------------------------------------


def zuko_flow(d, kind="MAF", **options):
    torch, zuko = library("torch"), library("zuko")
    torch.manual_seed(d.seed)
    hidden = (d.units, d.units, d.units + 3)[: d.one(1, 2, 3)]
    flow = getattr(zuko.flows, kind)
    return flow(d.features, d.columns, transforms=d.transforms, hidden_features=hidden, **options)


def zuko_adjacency(d):
    torch = library("torch")
    lower = np.tril(d.rng.random((d.features, d.features)) < 0.6)
    np.fill_diagonal(lower, True)
    lower[1, 0] = True
    return zuko_flow(d, adjacency=torch.from_numpy(lower))


def zuko_iaf(d):
    """A flow of inverses of autoregressive transforms, with fixed maps between them."""
    torch, zuko = library("torch"), library("zuko")
    flow, n = zuko_flow(d), d.features
    fixed = [
        (torch.distributions.AffineTransform, torch.randn(n), 0.5 + torch.rand(n)),
        (zuko.transforms.RotationTransform, torch.randn(n, n)),
        (zuko.transforms.LULinearTransform, torch.eye(n) + 0.1 * torch.randn(n, n)),
        (zuko.transforms.PermutationTransform, torch.randperm(n)),
    ]
    maps = [zuko.lazy.UnconditionalTransform(*one, buffer=True) for one in fixed]
    return zuko.lazy.Flow([*(t.inv for t in flow.transform.transforms), *maps], flow.base)


def zuko_additive(d):
    zuko = library("zuko")
    return zuko_flow(d, "NICE", univariate=zuko.transforms.AdditiveTransform, shapes=[()])


def zuko_activation(d):
    nn = library("torch").nn
    by_tanh = functools.partial(nn.GELU, approximate="tanh")
    return d.one(nn.ReLU, nn.Tanh, nn.ELU, nn.SiLU, nn.GELU, by_tanh, nn.Softplus, nn.LeakyReLU, nn.Sigmoid)


ZUKO = {
    "MAF": lambda d: zuko_flow(d, activation=zuko_activation(d)),
    "MAF, `randperm=True`": lambda d: zuko_flow(d, randperm=True),
    "MAF, `residual=True`": lambda d: zuko_flow(d, residual=True, activation=zuko_activation(d)),
    "MAF, `adjacency`": zuko_adjacency,
    "MAF inverted (IAF), fixed affine maps, rotations, LU maps, permutations": zuko_iaf,
    "NSF": lambda d: zuko_flow(d, "NSF", bins=d.bins, slope=d.one(1e-2, 1e-3, 1e-4)),
    "NSF, `passes=2` (coupling)": lambda d: zuko_flow(d, "NSF", passes=2, bins=d.bins, randperm=d.one(True, False)),
    "NCSF": lambda d: zuko_flow(d, "NCSF", bins=d.bins, passes=d.one(None, 2)),
    "NICE, RealNVP": lambda d: zuko_flow(d, "RealNVP", randmask=d.one(True, False)),
    "NICE with shifts alone": zuko_additive,
}


def zuko_normalised(d):
    """A flow whose couplings' networks have layer normalisation."""
    return zuko_flow(d, "NICE", normalize=True)


ZUKO_REFUSED = {
    "GF": lambda d: zuko_flow(d, "GF"),
    "NAF, UNAF, SOSPF, BPF": lambda d: zuko_flow(d, d.one("NAF", "UNAF", "SOSPF", "BPF")),
    "networks with `normalize=True`": zuko_normalised,
}

# ---- nflows, glasflow ------------------------------------------------------------------------------------------------


def torch_activation(d):
    torch = library("torch")
    own = torch.nn.functional
    gelus = torch.nn.GELU(), torch.nn.GELU(approximate="tanh")
    return d.one(own.relu, torch.tanh, own.elu, own.silu, own.leaky_relu, *gelus)


def nflows_flow(d, make, between=None):
    torch = library("torch")
    nflows = (library("nflows.transforms"), library("nflows.flows"), library("nflows.distributions"))
    transforms, flows, distributions = nflows
    torch.manual_seed(d.seed)
    chain = []
    for i in range(d.transforms):
        chain += [make(transforms, i), *([] if between is None else between(transforms))]
    return flows.Flow(transforms.CompositeTransform(chain), distributions.StandardNormal([d.features]))


def nflows_maf(d, residual, batch_norm=False, inverted=False):
    def make(transforms, i):
        own = transforms.MaskedAffineAutoregressiveTransform(
            d.features,
            d.units,
            d.columns or None,
            num_blocks=d.one(1, 2, 3),
            use_residual_blocks=residual,
            use_batch_norm=batch_norm,
            activation=torch_activation(d),
            random_mask=not residual and d.one(True, False),
        )
        return transforms.InverseTransform(own) if inverted else own

    return nflows_flow(d, make, lambda t: [t.RandomPermutation(d.features)])


def nflows_net(d, batch_norm=False):
    nets = library("nflows.nn.nets")
    options = {"use_batch_norm": batch_norm, "num_blocks": d.one(1, 2), "activation": torch_activation(d)}
    return functools.partial(nets.ResidualNet, hidden_features=d.units, context_features=d.columns or None, **options)


def nflows_mask(d, i):
    torch = library("torch")
    mask = np.where(np.arange(d.features) % 2 == i % 2, 1, -1)
    return torch.from_numpy(mask)


def nflows_coupling(d, kind, **options):
    def make(transforms, i):
        return getattr(transforms, kind)(nflows_mask(d, i), nflows_net(d, d.one(True, False)), **options)

    return nflows_flow(d, make, lambda t: [t.LULinear(d.features)])


def nflows_spline(d):
    least = d.one(1e-3, 1e-2)
    options = {"min_bin_width": least, "min_bin_height": least, "min_derivative": d.one(1e-3, 1e-2)}
    return {"num_bins": d.bins, "tails": "linear", "tail_bound": d.bound, **options}


def nflows_masked_spline(d):
    def make(transforms, i):
        return transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            d.features, d.units, d.columns or None, activation=torch_activation(d), **nflows_spline(d)
        )

    return nflows_flow(d, make, lambda t: [t.ReversePermutation(d.features)])


def nflows_linear(d):
    torch = library("torch")
    torch.qr = torch.linalg.qr  # the transforms of nflows 0.14 call `torch.qr`, which PyTorch 2.15 lacks

    def make(transforms, i):
        n = d.features
        return transforms.CompositeTransform(
            [
                transforms.PointwiseAffineTransform(torch.randn(n), 0.5 + torch.rand(n)),
                transforms.LULinear(n, identity_init=False),
                transforms.QRLinear(n, 4),
                transforms.SVDLinear(n, 4),
                transforms.NaiveLinear(n),
                transforms.HouseholderSequence(n, 2),
            ]
        )

    return nflows_flow(d, make)


def nflows_norms(d):
    def make(transforms, i):
        own = transforms.MaskedAffineAutoregressiveTransform(d.features, d.units, d.columns or None)
        return transforms.CompositeTransform([transforms.ActNorm(d.features), own, transforms.BatchNorm(d.features)])

    return nflows_flow(d, make)


def nflows_ready(d):
    library("torch").manual_seed(d.seed)
    flows = library("nflows.flows")
    kind = d.one(flows.MaskedAutoregressiveFlow, flows.SimpleRealNVP)
    norms = {"batch_norm_within_layers": d.one(True, False), "batch_norm_between_layers": d.one(True, False)}
    return kind(d.features, d.units, d.transforms, 2, **norms)


NFLOWS = {
    "MAF with residual blocks": lambda d: nflows_maf(d, True),
    "MAF with feed-forward blocks": lambda d: nflows_maf(d, False),
    "MAF with batch norm in blocks": lambda d: nflows_maf(d, d.one(True, False), batch_norm=True),
    "MAF inverted (IAF)": lambda d: nflows_maf(d, True, inverted=True),
    "NSF, autoregressive": nflows_masked_spline,
    "NSF of couplings": lambda d: nflows_coupling(
        d,
        "PiecewiseRationalQuadraticCouplingTransform",
        apply_unconditional_transform=d.one(True, False),
        **nflows_spline(d),
    ),
    "RealNVP": lambda d: nflows_coupling(d, "AffineCouplingTransform"),
    "NICE": lambda d: nflows_coupling(d, "AdditiveCouplingTransform"),
    "linear maps: LU, QR, SVD, naive, Householder, pointwise affine": nflows_linear,
    "batch and activation normalisation between transforms": nflows_norms,
    "MaskedAutoregressiveFlow, SimpleRealNVP": nflows_ready,
}
NO_CONTEXT = {
    "linear maps: LU, QR, SVD, naive, Householder, pointwise affine",
    "MaskedAutoregressiveFlow, SimpleRealNVP",
}


NFLOWS_REFUSED = {
    "linear, quadratic and cubic splines": lambda d: nflows_coupling(
        d, d.one("PiecewiseQuadraticCouplingTransform", "PiecewiseCubicCouplingTransform"), tails="linear"
    ),
    "splines without tails": lambda d: nflows_coupling(d, "PiecewiseRationalQuadraticCouplingTransform", tails=None),
    "MADE mixtures of Gaussians": lambda d: library("nflows.flows").Flow(
        library("nflows.transforms").IdentityTransform(),
        library("nflows.nn.nde").MixtureOfGaussiansMADE(d.features, d.units),
    ),
}


def glasflow_flow(d, kind, **options):
    library("torch").manual_seed(d.seed)
    flows = library("glasflow.flows.autoregressive" if "Autoregressive" in kind else "glasflow.flows")
    sizes = {"n_conditional_inputs": d.columns or None, "n_neurons": d.units, "activation": torch_activation(d)}
    norms = {"batch_norm_within_blocks": d.one(True, False), "batch_norm_between_transforms": d.one(True, False)}
    return getattr(flows, kind)(d.features, d.transforms, **sizes, **norms, **options)


def glasflow_link(d):
    return {"linear_transform": d.one(None, "permutation", "lu", "svd")}


GLASFLOW = {
    "RealNVP": lambda d: glasflow_flow(d, "RealNVP", **glasflow_link(d)),
    'RealNVP, `scale_activation="nflows"`': lambda d: glasflow_flow(d, "RealNVP", scale_activation="nflows"),
    'RealNVP, `scale_activation="log1"`, "log2", ...': lambda d: glasflow_flow(
        d, "RealNVP", scale_activation=d.one("log1", "log2", "log3")
    ),
    "RealNVP, `volume_preserving=True`": lambda d: glasflow_flow(d, "RealNVP", volume_preserving=True),
    "CouplingNSF": lambda d: glasflow_flow(d, "CouplingNSF", num_bins=d.bins, tail_bound=d.bound, **glasflow_link(d)),
    "MaskedAffineAutoregressiveFlow": lambda d: glasflow_flow(
        d, "MaskedAffineAutoregressiveFlow", scale_activation=d.one(None, "wide", "nflows", "log2")
    ),
    "MaskedPiecewiseRationalQuadraticAutoregressiveFlow": lambda d: glasflow_flow(
        d, "MaskedPiecewiseRationalQuadraticAutoregressiveFlow", num_bins=d.bins, tails="linear", tail_bound=d.bound
    ),
}
GLASFLOW_REFUSED = {
    "CouplingNSF with a uniform latent density": lambda d: glasflow_flow(d, "CouplingNSF", distribution="uniform"),
}

# ---- normflows -------------------------------------------------------------------------------------------------------


def normflows_flow(d, make):
    torch, nf = library("torch"), library("normflows")
    torch.manual_seed(d.seed)
    flows = [part for i in range(d.transforms) for part in make(nf, i)]
    base = nf.distributions.DiagGaussian(d.features, trainable=d.one(True, False))
    return (nf.ConditionalNormalizingFlow if d.columns else nf.NormalizingFlow)(base, flows)


def normflows_coupling(d):
    half = (d.features + 1) // 2

    def make(nf, i):
        split = d.one("channel", "channel_inv")
        passive = half if split == "channel" else d.features - half
        net = nf.nets.MLP([passive, d.units, d.units, 2 * (d.features - passive)], leaky=d.one(0.0, 0.01))
        maps = {"scale_map": d.one("exp", "sigmoid", "sigmoid_inv"), "split_mode": split}
        return [nf.flows.AffineCouplingBlock(net, **maps), nf.flows.Permute(d.features, d.one("shuffle", "swap"))]

    return normflows_flow(d, make)


def normflows_masked(d):
    torch = library("torch")

    def make(nf, i):
        n = d.features
        kept = torch.tensor([float(j % 2 == i % 2) for j in range(n)])
        nets = [nf.nets.MLP([n, d.units, n]) for _ in range(2)]
        t, s = d.one((nets[0], nets[1]), (nets[0], None), (None, nets[1]))
        return [nf.flows.MaskedAffineFlow(kept, t, s), nf.flows.ActNorm((n,)), nf.flows.InvertibleAffine(n)]

    return normflows_flow(d, make)


def normflows_made(d, reverse):
    def make(nf, i):
        residual = bool(d.columns) or d.one(True, False)
        own = nf.flows.MaskedAffineAutoregressive(
            d.features, d.units, d.columns or None, use_residual_blocks=residual, activation=torch_activation(d)
        )
        return [nf.flows.Reverse(own) if reverse else own]

    return normflows_flow(d, make)


def normflows_spline(d, kind):
    torch = library("torch")

    def make(nf, i):
        options = {"num_bins": d.bins, "tail_bound": d.bound, "num_context_channels": d.columns or None}
        if kind == "CoupledRationalQuadraticSpline":
            options["reverse_mask"] = i % 2 == 1
        else:
            options["permute_mask"] = d.one(True, False)
        own = getattr(nf.flows, kind)(d.features, 2, d.units, activation=d.one(torch.nn.ReLU, torch.nn.Tanh), **options)
        return [own, nf.flows.LULinearPermute(d.features)]

    return normflows_flow(d, make)


NORMFLOWS = {
    "AffineCouplingBlock (RealNVP), Permute": normflows_coupling,
    "MaskedAffineFlow (RealNVP, NICE), ActNorm, InvertibleAffine": normflows_masked,
    "MaskedAffineAutoregressive (IAF)": lambda d: normflows_made(d, False),
    "Reverse(MaskedAffineAutoregressive) (MAF)": lambda d: normflows_made(d, True),
    "AutoregressiveRationalQuadraticSpline, LULinearPermute": lambda d: normflows_spline(
        d, "AutoregressiveRationalQuadraticSpline"
    ),
    "CoupledRationalQuadraticSpline": lambda d: normflows_spline(d, "CoupledRationalQuadraticSpline"),
    'Planar, `act="leaky_relu"`': lambda d: normflows_flow(
        d, lambda nf, i: [nf.flows.Planar((d.features,), act="leaky_relu")]
    ),
}
NO_CONTEXT |= {
    "AffineCouplingBlock (RealNVP), Permute",
    "MaskedAffineFlow (RealNVP, NICE), ActNorm, InvertibleAffine",
    "Reverse(MaskedAffineAutoregressive) (MAF)",
    'Planar, `act="leaky_relu"`',
    "planar_flow",
}


NORMFLOWS_REFUSED = {
    "circular splines": lambda d: normflows_flow(
        d, lambda nf, i: [nf.flows.CircularAutoregressiveRationalQuadraticSpline(d.features, 2, d.units, [0])]
    ),
    "Radial, Planar with tanh": lambda d: normflows_flow(
        d, lambda nf, i: [d.one(nf.flows.Planar, nf.flows.Radial)((d.features,))]
    ),
    "Residual": lambda d: normflows_flow(
        d, lambda nf, i: [nf.flows.Residual(nf.nets.LipschitzMLP([d.features, 8, d.features]))]
    ),
    "MultiscaleFlow": lambda d: library("normflows").MultiscaleFlow([normflows_flow(d, lambda nf, i: []).q0], [[]], []),
    "MLP with `output_fn`": lambda d: normflows_flow(
        d,
        lambda nf, i: [
            nf.flows.AffineCouplingBlock(
                nf.nets.MLP([(d.features + 1) // 2, 8, 2 * (d.features // 2)], output_fn="tanh")
            )
        ],
    ),
}

# ---- flowjax ---------------------------------------------------------------------------------------------------------


def flowjax_flow(d, kind, transformer=None, **options):
    library("jax")
    import jax
    import jax.numpy as jnp

    equinox, flows, distributions = library("equinox"), library("flowjax.flows"), library("flowjax.distributions")
    base = d.one(distributions.StandardNormal((d.features,)), distributions.Normal(jnp.zeros(d.features)))
    sizes = {"cond_dim": d.columns or None, "flow_layers": d.transforms}
    if kind not in ("planar_flow", "block_neural_autoregressive_flow", "triangular_spline_flow"):
        sizes |= {"nn_width": d.units, "nn_depth": d.one(1, 2), "transformer": transformer}
    model = getattr(flows, kind)(jax.random.key(d.seed), base_dist=base, **sizes, **options)
    arrays, rest = equinox.partition(model, equinox.is_inexact_array)
    leaves, tree = jax.tree_util.tree_flatten(arrays)
    moved = [leaf + 0.1 * d.rng.standard_normal(leaf.shape).astype(str(leaf.dtype)) for leaf in leaves]
    return equinox.combine(jax.tree_util.tree_unflatten(tree, moved), rest)


def flowjax_spline(d):
    low, high = d.one((-d.bound, d.bound), (-2.0, d.bound))
    return library("flowjax.bijections").RationalQuadraticSpline(knots=d.bins, interval=(low, high))


def flowjax_activation(d):
    import jax

    return d.one(jax.nn.relu, jax.nn.tanh, jax.nn.silu, jax.nn.softplus)


FLOWJAX = {
    "masked_autoregressive_flow": lambda d: flowjax_flow(
        d, "masked_autoregressive_flow", nn_activation=flowjax_activation(d)
    ),
    "masked_autoregressive_flow, `invert=False` (IAF)": lambda d: flowjax_flow(
        d, "masked_autoregressive_flow", invert=False
    ),
    "masked_autoregressive_flow of RationalQuadraticSpline": lambda d: flowjax_flow(
        d, "masked_autoregressive_flow", flowjax_spline(d)
    ),
    "coupling_flow": lambda d: flowjax_flow(d, "coupling_flow", nn_activation=flowjax_activation(d)),
    "coupling_flow of RationalQuadraticSpline": lambda d: flowjax_flow(d, "coupling_flow", flowjax_spline(d)),
    "planar_flow": lambda d: flowjax_flow(d, "planar_flow", negative_slope=d.one(None, 0.3)),
    "`nn_activation=jax.nn.gelu`, the approximation by tanh": lambda d: flowjax_flow(
        d, "masked_autoregressive_flow", nn_activation=library("jax").nn.gelu
    ),
}
FLOWJAX_REFUSED = {
    "block_neural_autoregressive_flow": lambda d: flowjax_flow(d, "block_neural_autoregressive_flow"),
    "planar_flow, `invert=False`": lambda d: flowjax_flow(d, "planar_flow", invert=False),
    "triangular_spline_flow": lambda d: flowjax_flow(d, "triangular_spline_flow"),
}

# ---- sbi -------------------------------------------------------------------------------------------------------------


def sbi_estimator(d, kind, embedding=None, **options):
    torch = library("torch")
    library("nflows")
    neural_nets = library("sbi.neural_nets")
    torch.manual_seed(d.seed)
    theta = 3.0 * torch.randn(200, d.features) + 5.0
    x = 2.0 * torch.randn(200, max(d.columns, 1)) - 1.0
    sizes = {"hidden_features": d.units, "num_transforms": d.transforms, **options}
    if embedding is not None:
        sizes["embedding_net"] = embedding
    scores = {"z_score_theta": d.one("independent", "structured"), "z_score_x": d.one("independent", "none")}
    return neural_nets.posterior_nn(kind, **scores, **sizes)(theta, x)


SBI = {
    "maf": lambda d: sbi_estimator(d, "maf", use_batch_norm=d.one(True, False)),
    "maf_rqs": lambda d: sbi_estimator(d, "maf_rqs"),
    "nsf": lambda d: sbi_estimator(d, "nsf", num_bins=d.bins),
    "zuko_maf": lambda d: sbi_estimator(d, "zuko_maf"),
    "zuko_nsf": lambda d: sbi_estimator(d, "zuko_nsf"),
    "zuko_nice": lambda d: sbi_estimator(d, "zuko_nice"),
}
SBI_REFUSED = {
    "mdn": lambda d: sbi_estimator(d, "mdn"),
    "made": lambda d: sbi_estimator(d, "made"),
    "zuko_ncsf, zuko_gf, zuko_naf, zuko_unaf, zuko_sospf, zuko_bpf": lambda d: sbi_estimator(
        d, d.one("zuko_gf", "zuko_naf", "zuko_sospf", "zuko_bpf")
    ),
}

CASES = {
    "zuko": (ZUKO, ZUKO_REFUSED),
    "nflows": (NFLOWS, NFLOWS_REFUSED),
    "normflows": (NORMFLOWS, NORMFLOWS_REFUSED),
    "flowjax": (FLOWJAX, FLOWJAX_REFUSED),
    "glasflow": (GLASFLOW, GLASFLOW_REFUSED),
    "sbi": (SBI, SBI_REFUSED),
}
