"""The compiled core on the simulated device (fake_cuda.py): calls are queued, and another core computes them."""

import functools
import types

import numpy as np

from headrace import _cpu as cpu
from headrace.sequences.program import Filter

VERBS = ("log_prob", "sample", "from_noise", "transform", "gradient")


def make_core(machine):
    """A module like `_cuda`, which queues calls of the machine's inner module; the inner module queues nothing."""
    core, inner = types.ModuleType("headrace._cuda"), machine.inner(machine)

    def queued(word, function, *arguments, stream, **named):
        """Queue a call of the inner module, which has one stream."""
        machine.record(word, stream, [a[0] for a in (*arguments, *named.values()) if is_described(a)])
        machine.queue(stream).add(lambda: function(*arguments, **named, stream=0))

    def on_current(device):
        """Make the current device 0 for a call, because the inner module has one device."""
        assert device == machine.device
        return 0

    def op(name):
        def call(*arguments, device, stream, **named):
            queued(name, getattr(inner, name), *arguments, device=on_current(device), stream=stream, **named)

        return call

    for name in ("coupling", "coupling_backward", "vector_map", "vector_map_backward", "predict", "sum_steps"):
        setattr(core, name, op(name))

    class CausalTransform:
        def __init__(self, *, device, **options):
            machine.record("causal transform", device)
            self.inner = self.kind(**options, device=on_current(device))
            self.n_weights = self.inner.n_weights

        def parallel(self, *arguments, stream, **named):
            queued("parallel", self.inner.parallel, *arguments, stream=stream, **named)

        def sequential(self, *arguments, stream, **named):
            queued("sequential", self.inner.sequential, *arguments, stream=stream, **named)

    class Program:
        def __init__(self, *arguments):
            machine.record("program", arguments[-1], *([arguments[-2]] if arguments[-2] != "exact" else []))
            self.inner, self.streams = self.kind(*arguments), []
            self.n_weights = self.inner.n_weights

        def ordered(self, word, function, *arguments, stream, **named):
            """Queue a call of this object; calls on several streams wait for each other, as those of the real object
            do."""
            own = machine.queue(stream)
            for other in self.streams:
                if other is not own:
                    until = len(other.work)
                    own.add(lambda queue=other, until=until: queue.run(until))
            self.streams = [*{*self.streams, own}]
            queued(word, function, *arguments, **named, stream=stream)

        def __getattr__(self, name):
            """A method of the inner object, whose calls are queued, and recorded as "gradient" or else as "run"."""
            function = getattr(self.inner, name)
            return functools.partial(self.ordered, "gradient" if name == "gradient" else "run", function)

        def weights(self, out, stream):
            self.ordered("weights", self.inner.weights, out, stream=stream)

        def set_weights(self, weights, stream):
            self.ordered("set_weights", self.inner.set_weights, weights, stream=stream)

        def host_weights(self):
            machine.record("sync", "host_weights")
            machine.wait_for(self.streams)
            return self.inner.host_weights()

        def set_host_weights(self, weights):
            machine.record("sync", "set_host_weights")
            machine.wait_for(self.streams)
            self.inner.set_host_weights(weights)

    class Adam:
        def __init__(self, program, *arguments):
            self.program, self.inner = program, self.kind(program.inner, *arguments)

        def step(self, gradient, rate, norm, stream):
            self.program.ordered("step", self.inner.step, gradient, rate, norm, stream=stream)

        def average(self, out, stream):
            self.program.ordered("average", self.inner.average, out, stream=stream)

        def memory(self):
            machine.record("sync", "memory")
            machine.wait_for(self.program.streams)
            return self.inner.memory()

        def set_memory(self, *memory):
            machine.record("sync", "set_memory")
            machine.wait_for(self.program.streams)
            self.inner.set_memory(*memory)

    class Points:
        def __init__(self, x, weights, device, stream):
            make = lambda *arguments_then, **named: setattr(self, "inner", self.kind(*arguments_then, **named))  # noqa: E731
            queued("points", make, x, weights, device=on_current(device), stream=stream)

        def later(self, word, *arguments, stream):
            """Queue the method `word` of the inner object, which is looked up when the call is computed."""
            queued(
                word,
                lambda *arguments_then, **named: getattr(self.inner, word)(*arguments_then, **named),
                *arguments,
                stream=stream,
            )

        def step(self, *arguments, stream):
            sums = []
            summed = lambda *arguments_then, **named: sums.append(self.inner.step(*arguments_then, **named))  # noqa: E731
            queued("points step", summed, *arguments, stream=stream)
            if arguments[4] is None:
                return None
            machine.record("sync", "sums")
            machine.wait(stream)
            return sums[0]

        def values(self, out, stream):
            self.later("values", out, stream=stream)

        def squares(self, out, stream):
            self.later("squares", out, stream=stream)

        def log_jacobian(self, out, stream):
            self.later("log_jacobian", out, stream=stream)

    class Ascent:
        def __init__(self, *arguments, stream):
            def make(*arguments_then, stream):
                parties = [party and party.inner for party in arguments_then[:3]]
                self.inner = self.kind(*parties, *arguments_then[3:], stream=stream)

            queued("ascent", make, *arguments, stream=stream)

        def kink(self, *arguments, stream):
            queued(
                "kink",
                lambda *arguments_then, stream: self.inner.kink(*arguments_then, stream=stream),
                *arguments,
                stream=stream,
            )

        def finish(self, stream):
            queued("finish", lambda stream: self.inner.finish(stream=stream), stream=stream)

        def kinks(self, stream):
            machine.record("sync", "kinks")
            machine.wait(stream)
            return self.inner.kinks(0)

        def log_likelihoods(self, stream):
            machine.record("sync", "log_likelihoods")
            machine.wait(stream)
            return self.inner.log_likelihoods(0)

    for base in (Program, Adam, Points, Ascent, CausalTransform):
        for suffix in ("F32", "F64"):
            name = base.__name__ + suffix
            setattr(core, name, type(name, (base,), {"kind": staticmethod(getattr(inner, name))}))
    take_structure(core, inner)
    core.reason = lambda: "" if machine.devices else "no device is plugged in"
    core.device_count = lambda: machine.devices
    core.give_back = lambda index: machine.record("headrace gives back", index)
    core.device_name = lambda index: f"Fake {index}"
    core.device_capability = lambda index: "9.0"
    core.device_reason = lambda index: machine.reasons.get(index, "")
    core.is_compiled_by_driver = lambda index: index in machine.without_code
    core.architectures = lambda: "90-real"
    core.runtime_version, core.driver_version = lambda: 13000, lambda: 13010
    return core


def take_structure(core, inner):
    """Give `core` the CPU's classes of steps and options, because these do not depend on the device."""
    for name in ("HiddenOptions", "MaskedOptions", "MaskedTransform", *(n for n in dir(inner) if n.endswith("Step"))):
        setattr(core, name, getattr(inner, name))


class OnCpu:
    """The interface of `_cuda`, computed at once by the CPU's core on the memory of the arguments."""

    def __init__(self, machine):
        opened_argument = lambda argument: machine.numbers(argument) if is_described(argument) else argument  # noqa: E731

        def opened(function):
            def call(*arguments, stream, **named):
                return function(
                    *map(opened_argument, arguments),
                    **{name: opened_argument(argument) for name, argument in named.items()},
                )

            return call

        for name in ("coupling", "coupling_backward", "vector_map", "vector_map_backward"):
            kernel = opened(getattr(cpu, name))
            setattr(self, name, lambda *given, device, kernel=kernel, **named: kernel(*given, **named))

        def programs(kind):
            def make(features, context, base, steps, base_steps, mean, std, matmul, device):
                assert matmul == "exact" or kind is not cpu.ProgramF64
                inner = kind(features, context, base, steps, base_steps, mean, std)
                return types.SimpleNamespace(
                    inner=inner,
                    n_weights=inner.n_weights,
                    **{verb: opened(getattr(inner, verb)) for verb in VERBS},
                    weights=lambda out, stream: np.copyto(machine.numbers(out), inner.weights()),
                    set_weights=opened(inner.set_weights),
                    host_weights=inner.weights,
                    set_host_weights=inner.set_weights,
                )

            return make

        def optimisers(kind):
            def make(program, *arguments):
                inner = kind(program.inner, *arguments)

                def step(gradient, rate, norm, stream):
                    found = inner.step(machine.numbers(gradient), rate)
                    if norm is not None:
                        machine.numbers(norm)[0] = found

                return types.SimpleNamespace(
                    step=step,
                    average=lambda out, stream: np.copyto(machine.numbers(out), inner.average()),
                    memory=inner.memory,
                    set_memory=inner.set_memory,
                )

            return make

        def points(kind):
            def make(x, weights, device, stream):
                x, weights = machine.numbers(x).copy(), machine.numbers(weights)
                weights = None if weights is None else weights.copy()
                one = types.SimpleNamespace(inner=kind(x, weights))
                one.summed = lambda: kind(x, weights, False)  # for sums before an ascent's first step
                one.step = lambda *arguments, stream: one.inner.step(*arguments)
                one.values = lambda out, stream: np.copyto(machine.numbers(out), one.inner.values())
                one.squares = lambda out, stream: np.copyto(machine.numbers(out), one.inner.squares())
                one.log_jacobian = lambda out, stream: np.copyto(machine.numbers(out), one.inner.log_jacobian())
                return one

            return make

        def ascents(kind):
            def make(points, anchors, held_out, total, held_out_total, *arguments, stream):
                for party in filter(None, (points, held_out)):
                    party.inner = party.summed()
                own, others = ([party.inner for party in of if party] for of in ([points], [held_out]))
                checked, summed = [[True] * len(of) for of in (own, others)], lambda parts: parts.sum(axis=0)
                inner = kind(own, anchors.inner, others, *arguments, *checked, summed)
                return types.SimpleNamespace(
                    kink=lambda *arguments, stream: inner.kink(*arguments),
                    finish=lambda stream: inner.finish(),
                    kinks=lambda stream: inner.kinks(),
                    log_likelihoods=lambda stream: inner.log_likelihoods()[:, :2],
                )

            return make

        def transforms_of_sequences(kind):
            def make(device, reads_data, **options):
                of_map = ("map", "variant", "slope", "bins", "bound", "low", "min_bin", "has_level")
                network = cpu.CausalConvolution(**{name: o for name, o in options.items() if name not in of_map})
                inner = kind(network, reads_data, **{name: options[name] for name in of_map})
                return types.SimpleNamespace(
                    n_weights=network.n_weights, parallel=opened(inner.parallel), sequential=opened(inner.sequential)
                )

            return make

        def predict(theta, given, result, log_gain, to_signal, device, stream):
            theta, given, result, log_gain = map(machine.numbers, (theta, given, result, log_gain))
            made = Filter(theta.reshape(-1), *theta.shape)
            filtered, log_gain[:] = np.ascontiguousarray(made.coefficients[:, ::-1]), made.log_gain
            gain = np.exp(log_gain).astype(given.dtype)
            core = cpu.predict_f32 if given.dtype == np.float32 else cpu.predict_f64
            core(filtered.astype(given.dtype), given / gain if to_signal else given, result, None, to_signal)
            result *= 1 if to_signal else gain

        def sum_steps(scores, totals, device, stream):
            np.copyto(machine.numbers(totals), machine.numbers(scores).sum(axis=1, dtype=np.float64))

        self.predict, self.sum_steps = predict, sum_steps
        take_structure(self, cpu)
        for suffix in ("F32", "F64"):
            setattr(self, f"Program{suffix}", programs(getattr(cpu, f"Program{suffix}")))
            setattr(self, f"Adam{suffix}", optimisers(getattr(cpu, f"Adam{suffix}")))
            setattr(self, f"Points{suffix}", points(getattr(cpu, f"Points{suffix}")))
            setattr(self, f"Ascent{suffix}", ascents(getattr(cpu, f"Ascent{suffix}")))
            kind = getattr(cpu, f"CausalTransform{suffix}")
            setattr(self, f"CausalTransform{suffix}", transforms_of_sequences(kind))


def is_described(argument):
    return isinstance(argument, tuple) and len(argument) == 4 and isinstance(argument[3], str)
