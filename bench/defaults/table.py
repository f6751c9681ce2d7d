"""The table's rows: calls from docstrings, each beside its fastest setting; and the public names without a row."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import headrace as hr
from headrace._core.maps import MAPS as EVERY_MAP

SIZES = 1, 7, 17, 100
LANES = 16
LIMIT = 3.0
"""The largest ratio of a table row without a reason."""


@dataclass(frozen=True)
class Row:
    """A row of the table: a call beside the same call in its fastest setting; `bench.defaults` describes the kinds."""

    kind: str
    made: str
    """Python code that makes the arguments of both calls; it may read n."""
    call: str
    fastest: str
    n: int = 0
    fastest_n: int = 0
    """The value of n for the fastest setting."""

    @property
    def limit(self) -> float:
        """The largest ratio that passes."""
        return self._above[0]

    @property
    def reason(self) -> str:
        """The reason why the limit is above `LIMIT`, or an empty string."""
        return self._above[1]

    @property
    def _above(self) -> tuple[float, str]:
        listed = (above for pattern, above in ABOVE.items() if re.search(pattern, f"{self.name}, n = {self.n}"))
        return next(listed, (LIMIT, ""))

    @property
    def name(self) -> str:
        """The object and its call, as text."""
        return f"{self.made}; {self.call}" if self.made else self.call

    @property
    def names(self) -> set[str]:
        """The public names in the row, such as "NSF", "ops.vector_map", "Flow.sample" and "command.score"."""
        names = set()
        for node in ast.walk(ast.parse("\n".join((self.made, self.call, self.fastest)))):
            if isinstance(node, ast.Attribute):
                owner = ast.unparse(node.value).removeprefix("hr.")
                names.add(f"{OWNERS.get(owner, owner)}.{node.attr}".removeprefix("hr."))
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "command":
                names.add(f"command.{ast.literal_eval(node.args[0]).split()[0]}")
        return names


CLASSES = {
    "flow": hr.Flow,
    "signal": hr.SequenceFlow,
    "stream": hr.sequences.Stream,
    "t": hr.transforms.Transform,
    "ensemble": hr.Ensemble,
    "rest": hr.Conditional,
    "later": hr.sequences.Continuation,
    "adam": hr.Adam,
    "ascent": hr.DualAscentFlow,
}
"""The classes of the variables of rows; each public method of these classes has a row, too."""
OWNERS = {name: cls.__name__ for name, cls in CLASSES.items()}

ABOVE = {
    r"hr\.(MAF|IAF|RealNVP|NSF)\(.*\.(log_prob|sample|sample_and_log_prob|to_latent|to_data)\([^()]*\), n = 7$": (
        4,
        "Fewer than 8 rows go through the networks one by one, so that 7 take seven times one.",
    ),
    r"hr\.DualAscentFlow\(steps=2\).*ascent\.fit\(x, progress=False\)": (
        500,
        "The default chooses between forms of its maps by held-out rows and trains all steps together; "
        "the algorithm of the notes takes each step once.",
    ),
    r"hr\.(Planar|Radial)Flow\(3\).*flow\.log_prob\(lists\)": (
        8,
        "NumPy takes longer to read a list of rows than the flow to compute.",
    ),
    r"stream\.push\(one\)": (
        5,
        "The networks of 96 steps are products of matrices, those of a step alone products of a matrix and a vector.",
    ),
}
"""Limits above `LIMIT`, with their reasons, by construction, call and n: at most five."""

# ---- calls ----------------------------------------------------------------------------------------------------------

FLOWS = "MAF", "IAF", "RealNVP", "NSF", "PlanarFlow", "RadialFlow"
VERBS = (
    "flow.log_prob(x)",
    "flow.to_latent(x)",
    "flow.to_data(x)",
    "flow.sample(n, seed=0)",
    "flow.sample_and_log_prob(n, seed=0)",
    "flow.nll_and_grad(x)",
)
MAIN = "flow.log_prob(x)", "flow.sample(n, seed=0)", "flow.nll_and_grad(x)"
DERIVATIVES = (
    "flow.log_prob_and_score(x)",
    "flow.log_prob_vjp(x, ones)",
    "flow.log_prob_vjp(x, ones, values=True)",
    "flow.to_data_vjp(x, x, ones)",
    "flow.to_data_vjp(x, x, ones, values=True)",
    "flow.to_latent_vjp(x, x, ones)",
    "flow.to_latent_vjp(x, x, ones, values=True)",
)
BASES = (
    "StandardNormal(2)",
    "Normal(2)",
    "Logistic(2)",
    "Uniform(2)",
    'Independent(["normal", "uniform"])',
    "StudentT(2)",
    "NormalMixture(2, 2)",
)
TRANSFORMS = {  # names of transforms, with their numbers of features
    "MaskedAutoregressive(3)": 3,
    "Coupling(4, passive=[0, 2])": 4,
    "Elementwise(2)": 2,
    "Linear(3)": 3,
    "ActNorm(3)": 3,
    "Planar(2)": 2,
    "Radial(3)": 3,
    "Permutation([2, 0, 1])": 3,
    "Standardize([1.0, 2.0], [1.0, 4.0])": 2,
    "Gaussianize([[0.0, 1.0, 4.0]], [-1.0, 0.0, 1.0], [[1.0, 0.5, 0.25]])": 1,
    "Inverse(hr.transforms.Standardize([1.0], [2.0]))": 1,
    "OnColumns(hr.transforms.Permutation([1, 0]), columns=[0, 2], features=3)": 3,
    "Rotation([[0.0, -1.0], [1.0, 0.0]])": 2,
    "Support([(0.0, None), (0.0, 1.0), None])": 3,
}
MAPS = {name: one.n_params(bins=8) for name, one in EVERY_MAP.items()}
"""The number of parameters of a coordinate, for each map."""
FRAMES = {  # frames of packages that may be missing
    "pandas": "pandas.DataFrame(x.astype(float), columns=list('abc'))",
    "polars": "polars.DataFrame(x.astype(float), schema=list('abc'))",
    "pyarrow": "pyarrow.table(dict(zip('abc', x.astype(float).T)))",
}
ONES = "ones = np.ones(n, 'float32')"


def lanes(made: str, *calls: str) -> Iterator[Row]:
    """Table rows of each call with each number of rows, beside the next number that fills vectors."""
    for call in calls:
        for n in SIZES:
            yield Row("lanes", made, call, call, n, -(-n // LANES) * LANES)


def beside(kind: str, made: str, pairs: dict[str, str], n: int = 0) -> Iterator[Row]:
    """Table rows that compare each call with another call of the same n."""
    for call, fastest in pairs.items():
        yield Row(kind, made, call, fastest, n, n)


def of_flows() -> Iterator[Row]:
    """Table rows of flows of rows and their verbs."""
    for name in FLOWS:
        made = f"flow = hr.{name}(3); x = rows(n, 3)"
        yield from lanes(made, *VERBS)
        yield from (Row("many", made, call, call, 1000, 112) for call in MAIN)
        yield from beside("threads", made, {call: f"with hr.threads(1): {call}" for call in MAIN}, 1000)
        yield from beside("verb", made, {"flow.sample(n, seed=0)": "flow.log_prob(x)"}, 112)
        made += "; doubles = np.asfortranarray(x, float); lists = x.tolist(); out = np.empty(n, 'float32')"
        given = "doubles", "lists", "x, out=out"
        yield from beside("given", made, {f"flow.log_prob({x})": "flow.log_prob(x)" for x in given}, 112)
        yield from beside("make", f"data = hr.to_bytes(hr.{name}(3))", {f"hr.{name}(3)": "hr.from_bytes(data)"})
    for name in ("MAF", "IAF", "RealNVP"):
        made = f"flow, fast = hr.{name}(3), hr.{name}(3, map='additive'); x = rows(n, 3)"
        yield from beside("setting", made, {call: call.replace("flow.", "fast.") for call in MAIN}, 112)
    for name in ("MAF", "NSF"):
        made = f"flow = hr.{name}(64); fast = flow.to('cpu', matmul='bf16'); x = rows(n, 64)"
        yield from beside("setting", made, {"flow.log_prob(x)": "fast.log_prob(x)"}, 112)
    for package, frame in FRAMES.items():
        if find_spec(package):
            made = f"import {package}; flow = hr.MAF(3); x = rows(n, 3); frame = {frame}"
            yield from beside("given", made, {"flow.log_prob(frame)": "flow.log_prob(x)"}, 448)
    yield from lanes(f"flow = hr.MAF(3); x = rows(n, 3); {ONES}", *DERIVATIVES)
    yield from lanes("flow = hr.MAF(3, context=2); x, c = rows(n, 3), rows(n, 2)", "flow.log_prob(x, c)")
    yield from lanes("flow = hr.MAF(3, context=2); c = rows(n, 2)", "flow.sample(n, c, seed=0)")
    yield from lanes("flow = hr.MAF(3, hidden=hr.Network.residual((32, 32))); x = rows(n, 3)", "flow.log_prob(x)")
    made = "rest = hr.MAF(4, link='none').given(np.zeros(2)); x = rows(n, 2)"
    yield from lanes(made, "rest.log_prob(x)", "rest.sample(n, seed=0)")
    made = "ensemble = hr.Ensemble([hr.MAF(2, seed=s) for s in range(3)]); x = rows(n, 2)"
    yield from lanes(made, "ensemble.log_prob(x)", "ensemble.spread(x)", "ensemble.sample(n, seed=0)")
    made = "flow = hr.DualAscentFlow.notes(steps=5).fit(rows(200, 2), progress=False); x = rows(n, 2)"
    yield from lanes(made, "flow.log_prob(x)", "flow.sample(n, seed=0)")


def of_parts() -> Iterator[Row]:
    """Table rows of bases, transforms, and the maps alone."""
    for base in BASES:
        yield from lanes(f"flow = hr.Flow([], hr.{base}); x = rows(n, 2)", "flow.log_prob(x)", "flow.sample(n, seed=0)")
    for transform, features in TRANSFORMS.items():
        yield from lanes(f"t = hr.transforms.{transform}; x = rows(n, {features})", "t.forward(x)", "t.inverse(x)")
    calls = (f"t.{verb}_vjp(x, x, ones{more})" for verb in ("forward", "inverse") for more in ("", ", values=True"))
    yield from lanes(f"t = hr.transforms.Planar(2); x = rows(n, 2); {ONES}", *calls)
    for name in ("Elementwise(2", "MaskedAutoregressive(2", "Coupling(2, [0]"):
        made = f"t, fast = hr.transforms.{name}), hr.transforms.{name}, map='additive'); x = rows(n, 2)"
        yield from beside("setting", made, {"t.forward(x)": "fast.forward(x)", "t.inverse(x)": "fast.inverse(x)"}, 112)
    for name, count in MAPS.items():
        made = f"x, raw = rows(n, 2), rows(n, 2, {count}); {ONES}"
        yield from lanes(made, *of_ops("coupling", name))
    for name, count in (("planar", 5), ("radial", 4)):
        yield from lanes(f"x, raw = rows(n, 2), rows({count}); {ONES}", *of_ops("vector_map", name))
    made = "x, same, shift = rows(n, 2), np.eye(2, dtype='float32'), np.zeros(2, 'float32')"
    made += "; maps = np.array([[0.5, 0, 1]] * 2, 'float32')"
    yield from lanes(made, "hr.ops.dual_ascent_step(x, maps, same, shift, maps[:, 1:])")


def of_ops(name: str, map: str) -> tuple[str, ...]:
    """The calls of `hr.ops` for one map, in both directions and for its gradients."""
    both = (f"hr.ops.{name}(x, raw, '{map}'{more})" for more in ("", ", direction='inverse'"))
    return (*both, f"hr.ops.{name}_vjp(x, raw, x, ones, '{map}')")


def of_signals() -> Iterator[Row]:
    """Table rows of flows of signals, and of streams."""
    verbs = (
        "signal.log_prob(x)",
        "signal.log_prob_steps(x)",
        "signal.to_latent(x)",
        "signal.to_data(x)",
        "signal.sample(n, 8, seed=0)",
        "signal.nll_and_grad(x)",
        "signal.log_prob_and_score(x)",
        "signal.log_prob_vjp(x, ones)",
        "signal.log_prob_vjp(x, ones, values=True)",
        "signal.to_latent_vjp(x, x, None)",
        "signal.to_data_vjp(x, x, None)",
    )
    made = f"signal = hr.WaveNet(layers=4, channels=8); x = rows(n, 8, 1); {ONES}"
    yield from lanes(made, *verbs)
    yield from lanes("signal = hr.WaveNet(); x = rows(1, n, 1)", "signal.log_prob(x)", "signal.sample(1, n, seed=0)")
    made = "later = hr.WaveNet().given(np.zeros((1, 50, 1))); x = rows(1, n, 1)"
    yield from lanes(made, "later.log_prob(x)", "later.log_prob_steps(x)", "later.sample(1, n, seed=0)")
    yield from lanes(made, "later.forecast(n, draws=10, seed=0)")
    made = "parts = [hr.CausalConvolution(dilations=[1, 2], channels=8), hr.LinearPrediction(order=2)]"
    made += "; signal = hr.SequenceFlow(parts); x = rows(1, n, 1)"
    yield from lanes(made, "signal.log_prob(x)", "signal.sample(1, n, seed=0)")
    made = "parts = [hr.CausalConvolution(channels=8, sizes=True), hr.AdaptivePrediction(order=8, window=80)]"
    made += "; signal = hr.SequenceFlow(parts); x = rows(1, n, 1)"
    yield from lanes(made, "signal.log_prob(x)", "signal.sample(1, n, seed=0)")
    for n in (1, 7, 17):
        made = "signal, fast = hr.WaveNet(), hr.WaveNet(map='affine'); x = rows(n, 100, 1)"
        calls = "signal.log_prob(x)", "signal.sample(n, 100, seed=0)"
        yield from beside("setting", made, {call: call.replace("signal.", "fast.") for call in calls}, n)
    made = "stream, fast = hr.WaveNet().stream(), hr.WaveNet(map='affine').stream(); x = rows(1, n, 1)"
    calls = "stream.push(x)", "stream.pull(n, seed=0)"
    yield from beside("setting", made, {call: call.replace("stream.", "fast.") for call in calls}, 1)
    yield from beside("verb", made, {"stream.push(x)": "stream.pull(n, seed=0)"}, 1)
    made = "stream = hr.WaveNet().stream(); one, x = rows(1, 1, 1), rows(1, n, 1)"
    yield Row("many", made, "stream.push(one)", "stream.push(x)", 1, 96)
    yield Row("many", made, "stream.pull(1, seed=0)", "stream.pull(n, seed=0)", 1, 96)


def of_runs() -> Iterator[Row]:
    """Table rows of fits and other calls of many passes, compared with float32 rows and one thread."""
    of_rows = "; x, fast = np.asfortranarray(rows(600, 3), float), rows(600, 3)"
    few = "one, other = hr.MAF(3, transforms=1), hr.IAF(3, transforms=1)"
    energy = "energy = hr.densities.U2(); flow = hr.NSF(2)"
    runs = {
        "flow = hr.NSF(3)": "flow.fit(x, epochs=1, progress=False)",
        "flows = [hr.MAF(3), hr.NSF(3)]": "hr.fit_many(flows, [x, x], epochs=1, progress=False)",
        "ensemble = hr.Ensemble([hr.MAF(3), hr.MAF(3, seed=1)])": "ensemble.fit(x, epochs=1, progress=False)",
        "ascent = hr.DualAscentFlow.notes(steps=5)": "ascent.fit_members(x, 2, progress=False)",
        "flow = hr.MAF(3)": "hr.diagnose(flow, x[:100])",
        "wide = hr.Flow([hr.transforms.Standardize([0.0] * 3, [2.0] * 3)])": "hr.recalibrate(wide, x[:60])",
        "signal = hr.WaveNet()": "signal.fit([x[:300, :1]], epochs=1, progress=False)",
        "waves = hr.WaveNet(layers=4)": "hr.diagnose_sequences(waves, [x[:300, :1]])",
        'teacher, pupil = hr.WaveNet(layers=4), hr.WaveNet(layers=4, reads="latent")': (
            "hr.distill_sequences(teacher, pupil, steps=2, samples=4, length=64, progress=False)"
        ),
        few: "hr.distill(one, other, steps=2, samples=64, progress=False)",
        energy: "hr.fit_to_density(flow, energy, steps=2, samples=64, progress=False)",
        f"{energy}; draws = 1000": "hr.free_energy(flow, energy, samples=draws)",
    }
    for made, call in runs.items():
        fastest = call.replace("x[", "fast[").replace("(x", "(fast").replace("[x, x]", "[fast, fast]")
        yield from beside("threads", made + of_rows, {call: f"with hr.threads(1): {fastest}"})
    made = "x = rows(100, 2); ascent, fast = hr.DualAscentFlow(steps=2), hr.DualAscentFlow.notes(steps=2)"
    yield from beside("setting", made, {"ascent.fit(x, progress=False)": "fast.fit(x, progress=False)"})
    made = "flow, x = hr.MAF(3), rows(112, 3); adam = hr.Adam(flow); gradient = flow.nll_and_grad(x)[1]"
    yield from beside("verb", made, {"adam.step(gradient)": "flow.nll_and_grad(x)"})
    step = "(flow.nll_and_grad(x), {}.step(gradient))"
    yield from beside("setting", f"{made}; muon = hr.Muon(flow)", {step.format("muon"): step.format("adam")})


def of_files() -> Iterator[Row]:
    """Table rows of files, the command line and processes."""
    made = "flow, path = hr.NSF(3), folder + '/saved.safetensors'; flow.save(path); data = hr.to_bytes(flow)"
    pairs = {"hr.load(path)": "hr.from_bytes(data)", "flow.save(path)": "hr.to_bytes(flow)"}
    yield from beside("make", made, {**pairs, "flow.astype('float64')": "flow.astype('float32')"})
    yield from beside("make", "data = hr.to_bytes(hr.WaveNet())", {"hr.WaveNet()": "hr.from_bytes(data)"})
    made = "signal, fast = hr.WaveNet(), hr.WaveNet(map='affine')"
    yield from beside("setting", made, {"signal.stream()": "fast.stream()"})
    lines = {
        "score flow.safetensors table.csv -o scores.csv": "score flow.safetensors table.npy -o scores.npy",
        "diagnose flow.safetensors table.csv": "diagnose flow.safetensors table.npy",
        "sample flow.safetensors -n 1000 -o drawn.csv": "sample flow.safetensors -n 1000 -o drawn.npy",
        "fit table.csv -o fitted.safetensors --epochs 1": "fit table.npy -o fitted.safetensors --epochs 1",
        "sample voice.safetensors --seconds 0.1 -o drawn.wav": "sample affine.safetensors --seconds 0.1 -o drawn.wav",
        "score voice.safetensors signal.wav -o scores.csv": "score affine.safetensors signal.wav -o scores.csv",
    }
    commands = {f"command('{line}')": f"command('{fastest}')" for line, fastest in lines.items()}
    yield from beside("command", "write_files()", commands)
    yield from beside("process", "", {"process('-c', 'import headrace')": "process('-c', 'import numpy')"})
    yield from beside("process", "", {"process('-m', 'headrace', 'info')": "process('-c', 'import headrace')"})


ROWS: list[Row] = [*of_flows(), *of_parts(), *of_signals(), *of_runs(), *of_files()]

# ---- names without a row --------------------------------------------------------------------------------------------

_REASONS = {
    "an error": "CudaUnavailable FileFormatError",
    "describes a layer, of which Network is made": "Layer",
    "a base class, whose kinds have rows": "Base transforms.Transform",
    "what the methods of others return, which have rows": "Conditional",
    "reads or sets one value, or prints it": "command.info get_num_threads set_num_threads info ops.MAPS",
    "takes the time that it is given": "auto command.report",
    "is load, which has a row, and a look at the class": "Flow.load SequenceFlow.load Transform.load Ensemble.load",
    "measures by itself": "command.bench",
    "fits 60,000 rows": "command.demo",
    "needs a package of its own": "accelerate command.run command.export Flow.to_onnx Ensemble.to_onnx",
    "a module, whose kinds of rows go through Flow.fit": "rows",
    "copies parameters": (
        "Flow.named_parameters Flow.set_parameter Flow.marginal Flow.given SequenceFlow.astype SequenceFlow.to "
        "SequenceFlow.named_parameters SequenceFlow.set_parameter SequenceFlow.given SequenceFlow.save "
        "Transform.astype Transform.to Transform.named_parameters Transform.set_parameter Transform.save "
        "Ensemble.astype Ensemble.to Ensemble.named_parameters Ensemble.save DualAscentFlow.support"
    ),
    "copies or reads the state of a stream": "Stream.copies Stream.extend Stream.resumed Stream.state",
}
WITHOUT = {name: reason for reason, names in _REASONS.items() for name in names.split()}
"""The reason why a public name has no table row."""
