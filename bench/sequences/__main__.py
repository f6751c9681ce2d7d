"""Densities and samples of sequences beside PyTorch and a loop by hand, interleaved in one run, on equal threads.

    python -m bench.sequences             # half an hour, with torch.compile
    python -m bench.sequences --quick     # a rough picture in three minutes, without it

| case | timed call |
| --- | --- |
| A, stream | one stream of network A drawn step after step |
| A, streams | 48 of them together |
| A, density | log densities of one long sequence |
| B, density | log densities of one long sequence by network B |
| B, stream | one stream of network B |
| B, stream, bf16 | the same with weights in bf16 |
| student | four students of 10, 10, 10 and 30 layers: one sequence, all steps at once |
| A, push | log density of one step of a stream: the latency of a call |
| A, crops | gradients of the mean log density of crops, with as many steps as the field in front |
| A, gradient of a student | of log densities that are made one step after another, by everything, beside these alone |
| A, inner flow | log densities and samples of 3 values a step by an NSF, beside network and flow run apart |
| default | `hr.WaveNet()` as it is: one stream, 48 streams, a density and pushes, beside `hr.WaveNet(map="affine")` |

Network A has 16 layers of 32 channels and kernel 2; B has 30 layers of 64 channels and kernel 3; the student's layers
have B's channels and kernel; all networks have one value a step and an affine map. PyTorch, eager and compiled, keeps
the layers' past between steps. All results are compared before calls are timed. PyTorch computes all steps at once by
products of matrices or by convolutions: the faster kind on this machine takes part. Rates are steps for each second of
the processor, not of the clock, so that a busy machine changes them little; tables have the rounds' medians, with the
least and the largest ratio of a round.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from bench import report
from bench.memory import MEGABYTE, forget_peak, resident
from bench.peers.client import ROOT, alternating, machine_facts
from bench.sequences import hand
from bench.sequences.inner import Apart
from headrace._cli.bench import multiply_add_peak

A = {"channels": 32, "kernel": 2, "dilations": [2 ** (i % 8) for i in range(16)]}
STUDENT_LAYERS = (10, 10, 10, 30)
KINDS = ("matrices", "convolutions")  # PyTorch's ways to compute all steps at once
TORCH_STEPS = 2**14  # the steps of a long sequence that PyTorch computes at once; more would leave the caches


def network_b(layers: int) -> dict[str, Any]:
    """The options of network B, which has 30 layers."""
    return {"channels": 64, "kernel": 3, "dilations": [2 ** (i % 10) for i in range(layers)]}


@dataclass(frozen=True)
class Contender:
    """A contender of a case, whose call returns the number of its steps and their processor seconds."""

    name: str
    call: Callable[[], tuple[int, float]]


@dataclass
class Case:
    """Contenders that are compared, and the multiply-adds of one of their steps."""

    name: str
    multiply_adds: int
    contenders: list[Contender]


def timed(call: Callable[[], Any], steps: int) -> tuple[int, float]:
    """The number of steps, and the processor seconds of this process for a call."""
    begin = time.process_time()
    call()
    return steps, time.process_time() - begin


def faster(kinds: dict[str, Callable[[], Any]], steps: int) -> Contender:
    """The contender that takes the least time in the best of three runs."""
    seconds = {name: min(timed(call, steps)[1] for _ in range(3)) for name, call in kinds.items()}
    name = min(kinds, key=seconds.__getitem__)
    return Contender(name, lambda: timed(kinds[name], steps))


def made(options: dict[str, Any], reads: str = "data", seed: int = 0) -> hr.CausalConvolution:
    """A network whose weights keep its values of order one."""
    return hr.CausalConvolution(map="affine", reads=reads, seed=seed, **options)


def rounded(array: NDArray[Any]) -> NDArray[Any]:
    """An array rounded to the nearest bf16 values."""
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)


def multiply_adds(t: hr.CausalConvolution) -> int:
    """The multiply-adds of one step: the number of weights without biases."""
    return sum(array.size for array in t.named_parameters().values() if array.ndim > 1)


def named(rows: int) -> str:
    """The number of sequences as text, for the name of a case."""
    return "one sequence" if rows == 1 else f"{rows} sequences"


def check_close(what: str, got: NDArray[Any], want: NDArray[Any], within: float) -> None:
    """Fail where the results of contenders differ."""
    worst = float(np.abs(np.asarray(got, np.float64) - np.asarray(want, np.float64)).max())
    if not worst < within:
        raise AssertionError(f"{what}: differs by {worst:.3g} from headrace, more than {within:g}")


class Sizes:
    """The steps of one call of each contender, so that each call takes some tenths of a second."""

    def __init__(self, quick: bool) -> None:
        """Choose the numbers of steps: a fifth of them for a quick run."""
        part = 0.2 if quick else 1.0
        self.stream, self.streams, self.density = int(60_000 * part), int(3_000 * part), int(200_000 * part)
        self.torch_stream, self.torch_streams = int(1_000 * part), int(500 * part)
        self.crops = int(20 * part)
        self.b_stream, self.student, self.pushes = int(12_000 * part), int(24_000 * part), int(5_000 * part)


class Suite:
    """All cases of one run."""

    def __init__(self, folder: Path, sizes: Sizes, with_compile: bool) -> None:
        """Make networks, and find the contenders that are installed."""
        self.folder, self.sizes, self.with_compile = folder, sizes, with_compile
        self.program = hand.compiled(folder)
        self.has_torch = find_spec("torch") is not None
        self.hands: list[hand.Hand] = []
        rng = np.random.default_rng(0)
        self.signal = rng.standard_normal((1, sizes.density, 1)).astype(np.float32)

    def close(self) -> None:
        """End the processes that the suite started."""
        for one in self.hands:
            one.close()

    def _hand(self, t: hr.CausalConvolution, options: dict[str, Any]) -> hand.Hand | None:
        """The loop by hand with these weights, after a check that its raw parameters agree with headrace's up to
        rounding."""
        if self.program is None:
            return None
        arrays = t.named_parameters()
        if t.matmul == "bf16":
            arrays = {name: rounded(array) if array.ndim > 1 else array for name, array in arrays.items()}
        own = hand.Hand(self.program, self.folder, arrays, tuple(options["dilations"]))
        self.hands.append(own)
        if t.matmul == "bf16":
            last = [np.array(own.seconds(verb, 1440)[2]) for verb in ("pairs", "stream")]
            check_close("the loop by hand in bf16", *last, 1e-3)
        values, raw = own.outputs(1440, self.folder)
        z, _ = hr.SequenceFlow([t]).to_latent(values[None, :, None])
        log = raw[:, 1] / (1.0 + np.abs(raw[:, 1]) / math.log(1e3))
        check_close("the loop by hand", (values - raw[:, 0]) * np.exp(-log), z[0, :, 0], 1e-3)
        return own

    def _by_hand(self, own: hand.Hand | None, verb: str, steps: int, streams: int = 1) -> list[Contender]:
        if own is None:
            return []

        def call() -> tuple[int, float]:
            count, seconds, _ = own.seconds(verb, steps)
            return count * streams, seconds

        return [Contender("by hand", call)]

    def _cached(self, t: hr.CausalConvolution, options: dict[str, Any], rows: int, steps: int) -> list[Contender]:
        """The contenders of PyTorch that compute one step after another."""
        if not self.has_torch:
            return []
        import torch

        from bench.sequences.torch_anchor import Cached, Network, drawn

        network = Network(t.named_parameters(), tuple(options["dilations"])).eval().requires_grad_(False)
        flow, kernel = hr.SequenceFlow([t]), int(options["kernel"])
        noise = torch.randn(steps, rows, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            some = drawn(Cached(network, rows), noise[:40], kernel)
        check_close("PyTorch", some.numpy().T, flow.to_data(noise[:40].numpy().T[..., None])[0][..., 0], 1e-3)
        kinds: list[tuple[str, Any]] = [("torch, eager", Cached(network, rows))]
        if self.with_compile and rows == 1:
            compiled = torch.compile(Cached(network, rows), fullgraph=True, dynamic=False)
            with torch.inference_mode():
                drawn(compiled, noise[:5], kernel)
            kinds.append(("torch, compiled", compiled))

        def contender(name: str, step: Any) -> Contender:
            def call() -> tuple[int, float]:
                with torch.inference_mode():
                    return timed(lambda: drawn(step, noise, kernel), steps * rows)

            return Contender(name, call)

        return [contender(*kind) for kind in kinds]

    def _parallel(
        self, parts: list[tuple[hr.CausalConvolution, dict[str, Any]]], steps: int, verb: str
    ) -> list[Contender]:
        """The contender of PyTorch that computes all steps at once."""
        if not self.has_torch:
            return []
        import torch

        from bench.sequences.torch_anchor import Network

        x = torch.tensor(self.signal[:, :steps])

        def run(by_convolutions: bool) -> Callable[[], torch.Tensor]:
            own = [
                Network(t.named_parameters(), tuple(o["dilations"]), by_convolutions).eval().requires_grad_(False)
                for t, o in parts
            ]
            return lambda: made_by(own)

        def made_by(own: list[Network]) -> torch.Tensor:
            with torch.inference_mode():
                if verb == "log_prob":
                    return own[0].log_prob(x)
                value = x
                for network in own:
                    value = network.draw(value)[..., None]
                return value[..., 0]

        flow = hr.SequenceFlow([t for t, _ in parts])
        some = self.signal[:, :steps]
        want = flow.log_prob_steps(some) if verb == "log_prob" else flow.to_data(some)[0][..., 0]
        kinds = {f"torch, {name}": run(name == "convolutions") for name in KINDS}
        for kind in kinds.values():
            check_close("PyTorch", kind().numpy(), want, 1e-2)
        return [faster(kinds, steps)]

    def _gradients(self, t: hr.CausalConvolution, options: dict[str, Any], rows: int, crop: int) -> Case:
        """Gradients of crops by the weights, the main part of a training step."""
        flow, warm = hr.SequenceFlow([t]), t.field
        x = np.ascontiguousarray(self.signal[0, : rows * (warm + crop)].reshape(rows, warm + crop, 1))
        weights = np.zeros((rows, warm + crop), np.float32)
        weights[:, warm:] = 1.0
        ours = Contender("headrace", lambda: timed(lambda: flow.nll_and_grad(x, weights=weights), rows * crop))
        case = Case(f"A, crops of {crop}", 3 * multiply_adds(t), [ours])
        if not self.has_torch:
            return case
        import torch

        from bench.sequences.torch_anchor import Network

        values = torch.tensor(x)

        def step(network: Network) -> float:
            network.zero_grad()
            loss = -network.log_prob(values)[:, warm:].mean()
            loss.backward()
            return loss.item()

        loss, gradient = flow.nll_and_grad(x, weights=weights)
        holder, kinds = hr.SequenceFlow([t]), {}
        holder.parameters = gradient
        for kind in KINDS:
            network = Network(t.named_parameters(), tuple(options["dilations"]), kind == "convolutions")
            check_close("PyTorch's loss", np.array(step(network)), np.array(loss), 1e-3)
            for name, own in holder.named_parameters().items():
                theirs = network.of(name.removeprefix("transforms.0.")).grad
                assert theirs is not None
                within = 1e-3 * max(1.0, float(np.abs(own).max()))
                check_close(f"PyTorch's gradient of {name}", theirs.numpy(), own, within)
            kinds[f"torch, {kind}"] = partial(step, network)
        case.contenders.append(faster(kinds, rows * crop))
        return case

    def cases(self) -> list[Case]:
        """The cases of the table, in its order."""
        sizes, a, b = self.sizes, made(A), made(network_b(30), seed=1)
        b16 = b.to("cpu", "bf16")
        flow_a, flow_b, flow_b16 = (hr.SequenceFlow([t]) for t in (a, b, b16))
        by_hand_a, by_hand_b, by_hand_b16 = (
            self._hand(a, A),
            self._hand(b, network_b(30)),
            self._hand(b16, network_b(30)),
        )
        ours, x_b = Contender, self.signal[:, :TORCH_STEPS]
        cases = [
            Case(
                "A, stream",
                multiply_adds(a),
                [
                    ours("headrace", lambda: timed(lambda: flow_a.sample(1, sizes.stream, seed=0), sizes.stream)),
                    *self._by_hand(by_hand_a, "stream", sizes.stream),
                    *self._cached(a, A, 1, sizes.torch_stream),
                ],
            ),
            Case(
                "A, streams",
                multiply_adds(a),
                [
                    ours(
                        "headrace", lambda: timed(lambda: flow_a.sample(48, sizes.streams, seed=0), 48 * sizes.streams)
                    ),
                    *self._by_hand(by_hand_a, "streams", sizes.streams, 48),
                    *self._cached(a, A, 48, sizes.torch_streams),
                ],
            ),
            Case(
                "A, density",
                multiply_adds(a),
                [
                    ours("headrace", lambda: timed(lambda: flow_a.log_prob(self.signal), sizes.density)),
                    *self._by_hand(by_hand_a, "density", sizes.density),
                    *self._parallel([(a, A)], min(sizes.density, TORCH_STEPS), "log_prob"),
                ],
            ),
            Case(
                "B, density",
                multiply_adds(b),
                [
                    ours("headrace", lambda: timed(lambda: flow_b.log_prob(x_b), x_b.size)),
                    *self._parallel([(b, network_b(30))], x_b.shape[1], "log_prob"),
                ],
            ),
            Case(
                "B, stream",
                multiply_adds(b),
                [
                    ours("headrace", lambda: timed(lambda: flow_b.sample(1, sizes.b_stream, seed=0), sizes.b_stream)),
                    *self._by_hand(by_hand_b, "stream", sizes.b_stream),
                    *self._cached(b, network_b(30), 1, sizes.torch_stream),
                ],
            ),
            Case(
                "B, stream, bf16",
                multiply_adds(b),
                [
                    ours("headrace", lambda: timed(lambda: flow_b16.sample(1, sizes.b_stream, seed=0), sizes.b_stream)),
                    *self._by_hand(by_hand_b16, "pairs", sizes.b_stream),
                    ours(
                        "headrace, float32",
                        lambda: timed(lambda: flow_b.sample(1, sizes.b_stream, seed=0), sizes.b_stream),
                    ),
                ],
            ),
        ]
        parts = [(made(network_b(n), "latent", n + i), network_b(n)) for i, n in enumerate(STUDENT_LAYERS)]
        student = hr.SequenceFlow([t for t, _ in parts])
        cases.append(
            Case(
                "student",
                sum(multiply_adds(t) for t, _ in parts),
                [
                    ours("headrace", lambda: timed(lambda: student.sample(1, sizes.student, seed=0), sizes.student)),
                    *self._parallel(parts, min(sizes.student, TORCH_STEPS), "draw"),
                ],
            )
        )
        cases.append(Case("A, push", multiply_adds(a), [ours("headrace", lambda: self._pushed(flow_a))]))
        cases.append(self._gradients(a, A, self.sizes.crops, 1024))
        cases.append(self._gradients(a, A, max(1, self.sizes.crops // 4), 4096))
        return cases + self._sequential_gradients() + self._inner_flows() + self._defaults()

    def _pushed(self, flow: hr.SequenceFlow) -> tuple[int, float]:
        one, n = self.signal[:, :1], self.sizes.pushes

        def push() -> None:
            stream = flow.stream()
            for _ in range(n):
                stream.push(one)

        return timed(push, n)

    def _defaults(self) -> list[Case]:
        """The flow of the defaults, beside the flow with the cheapest map."""
        sizes = self.sizes
        flows = {"headrace": hr.WaveNet(seed=0), "affine map": hr.WaveNet(map="affine", seed=0)}
        calls: dict[str, Callable[[hr.SequenceFlow], tuple[int, float]]] = {
            "stream": lambda flow: timed(lambda: flow.sample(1, sizes.stream, seed=0), sizes.stream),
            "streams": lambda flow: timed(lambda: flow.sample(48, sizes.streams, seed=0), 48 * sizes.streams),
            "density": lambda flow: timed(lambda: flow.log_prob(self.signal), sizes.density),
            "push": self._pushed,
        }
        work = multiply_adds(flows["headrace"].transforms[0])
        return [
            Case(
                f"default, {name}",
                work,
                [Contender(kind, lambda call=call, flow=flow: call(flow)) for kind, flow in flows.items()],
            )
            for name, call in calls.items()
        ]

    def _sequential_gradients(self) -> list[Case]:
        """Gradients of a student's density, beside the density alone."""
        t = made(A, "latent")
        flow, cases = hr.SequenceFlow([t]), []
        for rows in (1, 48):
            steps = self.sizes.crops * 1024 if rows == 1 else 512
            x = np.ascontiguousarray(self.signal[0, : rows * steps].reshape(rows, steps, 1))
            ones = np.ones(rows, np.float32)
            ours = Contender("headrace", lambda x=x, ones=ones: timed(lambda: flow.log_prob_vjp(x, ones), x.size))
            alone = Contender("the density alone", lambda x=x: timed(lambda: flow.log_prob(x), x.size))
            cases.append(Case(f"A, gradient of a student, {named(rows)}", multiply_adds(t), [ours, alone]))
        return cases

    def _inner_flows(self) -> list[Case]:
        """Cases with an NSF over the three values of a step."""
        flow, cases = hr.WaveNet(3, layers=16, channels=32, prediction=0, companded=False, seed=0), []
        for rows in (1, 48):
            steps = self.sizes.streams * 2 // (1 if rows == 1 else 12)
            own = Apart(flow, rows, steps)
            for name, (together, apart) in (("density", own.density()), ("sampling", own.sampling())):
                contenders = [
                    Contender(kind, lambda call=call, n=rows * steps: timed(call, n))
                    for kind, call in (("headrace", together), ("network and flow apart", apart))
                ]
                work = multiply_adds(flow.transforms[0])
                cases.append(Case(f"A, inner flow, {name}, {named(rows)}", work, contenders))
        return cases


def interleaved(case: Case, rounds: int) -> dict[str, list[float]]:
    """The rates of each contender in each round, in steps for a second of the processor."""
    rates: dict[str, list[float]] = {contender.name: [] for contender in case.contenders}
    for contender in case.contenders:
        contender.call()
    for i in range(rounds):
        for contender in alternating(case.contenders, i):
            steps, seconds = contender.call()
            rates[contender.name].append(steps / seconds)
    return rates


def memory_of_a_long_signal(steps: int) -> float:
    """The megabytes that the log density of a long signal takes beside the signal."""
    flow = hr.SequenceFlow([made(A)])
    x = np.zeros((1, steps, 1), np.float32)
    x[...] = 0.1
    flow.log_prob(x[:, :1000])
    forget_peak()
    before = resident()[0]
    flow.log_prob(x)
    return (resident()[1] - before) / MEGABYTE


def parts_of_b(rounds: int = 7) -> list[str]:
    """The time of a density of B by other kernel sizes: a part that grows with the weights, and a constant part."""
    x = np.random.default_rng(0).standard_normal((1, TORCH_STEPS, 1)).astype(np.float32)
    networks = [
        made(network_b(30) | {"kernel": kernel, "dilations": A["dilations"] + A["dilations"][:14]})
        for kernel in (2, 3, 5, 9)
    ]
    flows = [hr.SequenceFlow([t]) for t in networks]
    seconds = np.median(
        [[timed(partial(flow.log_prob, x), x.size)[1] / x.size for flow in flows] for _ in range(rounds)], axis=0
    )
    work = np.array([multiply_adds(t) for t in networks])
    each, fixed = np.polyfit(work, seconds, 1)
    peak = multiply_add_peak(0.5) / 2.0
    whole = work[1] / seconds[1] * 1e-9
    return [
        f"B: {whole:.1f} 10⁹ multiply-adds a second, {whole / peak:.0%} of the peak in registers, {peak:.1f}",
        f"products alone: {1e-9 / each:.1f}, {1e-9 / each / peak:.0%}",
        f"apart from them: {fixed / seconds[1]:.0%} of a step's time",
    ]


def in_its_own_process(steps: int) -> float:
    """Run the measurement in another process, where nothing else has taken memory before."""
    command = [sys.executable, "-m", "bench.sequences", "--memory", str(steps)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)


def lines_of(cases: Sequence[Case], rates: dict[str, dict[str, list[float]]]) -> list[str]:
    """The lines of the table."""
    rows = []
    for case in cases:
        ours = rates[case.name]["headrace"]
        for name, own in rates[case.name].items():
            ratios = [a / b for a, b in zip(ours, own, strict=True)]
            beside = (
                "" if name == "headrace" else f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            )
            rate = statistics.median(own)
            giga = rate * case.multiply_adds * 1e-9
            rows.append([case.name, name, f"{rate:,.0f}", f"{giga:.1f}", beside])
    head = [
        "case",
        "library",
        "steps a second of one core",
        "10⁹ multiply-adds a second",
        "time of the library / time of headrace",
    ]
    return report.table(head, rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Run all cases and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a fifth of the steps, three rounds, without torch.compile"
    )
    parser.add_argument("--eager", action="store_true", help="without torch.compile, which takes minutes")
    parser.add_argument("--rounds", type=int, help="by default 3 or 15")
    parser.add_argument("--only", help="a case, by the beginning of its name")
    parser.add_argument("--memory", type=int, help="measure only the memory of a signal with this number of steps")
    parser.add_argument("--parts", action="store_true", help="where the time of B's density goes, and nothing else")
    arguments = parser.parse_args(argv)
    hr.set_num_threads(1)
    if arguments.parts:
        print("\n".join(parts_of_b()))
        return
    if arguments.memory:
        print(memory_of_a_long_signal(arguments.memory))
        return
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)
    rounds = arguments.rounds or (3 if arguments.quick else 15)
    with tempfile.TemporaryDirectory() as folder:
        suite = Suite(Path(folder), Sizes(arguments.quick), not (arguments.quick or arguments.eager))
        try:
            cases = [case for case in suite.cases() if case.name.startswith(arguments.only or "")]
            rates = {}
            for case in cases:
                rates[case.name] = interleaved(case, rounds)
                print("\n".join(lines_of([case], rates)[2:]), flush=True)
        finally:
            suite.close()
    long = in_its_own_process(2**21 if arguments.quick else 2**24)
    machine, date = machine_facts(1), time.strftime("%Y-%m-%d")
    text = [
        "# Sequences", "", report.machine_line(machine, date), "",
        f"One thread, {rounds} rounds, seconds of the processor. In brackets: the ratios of single rounds.",
        "", *lines_of(cases, rates), "",
        f"The log density of a long signal takes {long:.1f} MB beside the signal.", "",
    ]  # fmt: skip
    print("\n".join(text))
    if not arguments.only:
        facts = {"machine": machine, "date": date, "rounds": rounds, "rates": rates, "memory_mb": long}
        report.write(report.stem(f"sequences{'_quick' if arguments.quick else ''}", 1), facts, "\n".join(text))


if __name__ == "__main__":
    main()
