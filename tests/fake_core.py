"""The compiled core on the device that is none (fake_cuda.py): calls are queued, and done by another core at once."""

import types

import numpy as np

from headrace import _cpu as cpu


def make_core(machine):
    """A module like `_cuda`, which queues what the machine's inner one then does at once."""
    core, inner = types.ModuleType("headrace._cuda"), machine.inner(machine)

    def queued(word, function, *arguments):
        machine.say(word, arguments[-1], [a[0] for a in arguments if is_told(a)])
        machine.queue(arguments[-1]).add(lambda: function(*arguments[:-1], 0))

    def op(name):
        return lambda *arguments: queued(name, getattr(inner, name), *arguments)

    for name in ("coupling", "coupling_backward", "vector_map", "vector_map_backward"):
        setattr(core, name, op(name))

    class Program:
        def __init__(self, *arguments):
            machine.say("program", arguments[-1])
            self.inner, self.streams = self.kind(*arguments), []
            self.n_weights = self.inner.n_weights

        def ordered(self, word, function, *arguments):
            """Calls on several streams wait for each other, as those of the real one do."""
            stream = arguments[-1]
            for other in self.streams:
                if other != stream:
                    queue, until = machine.queue(other), len(machine.queue(other).work)
                    machine.queue(stream).add(lambda queue=queue, until=until: queue.run(until))
            self.streams = [*{*self.streams, stream}]
            queued(word, function, *arguments)

        def run(self, *arguments):
            self.ordered("run", self.inner.run, *arguments)

        def run_gradient(self, *arguments):
            self.ordered("run_gradient", self.inner.run_gradient, *arguments)

        def weights(self, out, stream):
            self.ordered("weights", self.inner.weights, out, stream)

        def set_weights(self, weights, stream):
            self.ordered("set_weights", self.inner.set_weights, weights, stream)

        def host_weights(self):
            machine.say("sync", "host_weights")
            for stream in self.streams:
                machine.wait(stream)
            return self.inner.host_weights()

        def set_host_weights(self, weights):
            machine.say("sync", "set_host_weights")
            for stream in self.streams:
                machine.wait(stream)
            self.inner.set_host_weights(weights)

    class Adam:
        def __init__(self, program, *arguments):
            self.program, self.inner = program, self.kind(program.inner, *arguments)

        def step(self, gradient, rate, norm, stream):
            self.program.ordered("step", self.inner.step, gradient, rate, norm, stream)

        def average(self, out, stream):
            self.program.ordered("average", self.inner.average, out, stream)

    class Points:
        def __init__(self, x, weights, stream):
            queued("points", lambda *told: setattr(self, "inner", self.kind(*told)), x, weights, stream)

        def step(self, *arguments):
            sums = []
            queued("points step", lambda *told: sums.append(self.inner.step(*told)), *arguments)
            if arguments[4] is None:
                return None
            machine.say("sync", "sums")
            machine.wait(arguments[-1])
            return sums[0]

        def values(self, out, stream):
            queued("values", lambda *told: self.inner.values(*told), out, stream)

        def log_jacobian(self, out, stream):
            queued("log_jacobian", lambda *told: self.inner.log_jacobian(*told), out, stream)

    for base in (Program, Adam, Points):
        for suffix in ("F32", "F64"):
            name = base.__name__ + suffix
            setattr(core, name, type(name, (base,), {"kind": staticmethod(getattr(inner, name))}))
    core.MaskedOptions, core.MaskedTransform = inner.MaskedOptions, inner.MaskedTransform
    core.reason = lambda: "" if machine.devices else "no device is plugged in"
    core.device_count = lambda: machine.devices
    core.device_name = lambda index: f"Fake {index}"
    core.architectures = lambda: "90-real"
    core.runtime_version, core.driver_version = lambda: 13000, lambda: 13010
    return core


class OnCpu:
    """What `_cuda` does, done at once by the CPU's core on the memory that it is told of."""

    def __init__(self, machine):
        told = lambda argument: machine.numbers(argument) if is_told(argument) else argument  # noqa: E731

        def opened(function):
            return lambda *arguments: function(*map(told, arguments[:-1]))

        for name in ("coupling", "coupling_backward", "vector_map", "vector_map_backward"):
            setattr(self, name, opened(getattr(cpu, name)))

        class MaskedOptions:
            def __init__(self, **options):
                self.inner = cpu.MaskedOptions(**options)

        class MaskedTransform:
            def __init__(self, options, levels, degrees):
                self.inner = cpu.MaskedTransform(options.inner, levels, degrees)

            @classmethod
            def from_masks(cls, options, masks):
                self = cls.__new__(cls)
                self.inner = cpu.MaskedTransform.from_masks(options.inner, masks)
                return self

        def programs(kind):
            def make(features, context, base, steps, base_steps, mean, std, device):
                own = [(*step[:2], step[2].inner) if step[0] == "masked" else step for step in steps]
                inner = kind(features, context, base, own, base_steps, mean, std)
                return types.SimpleNamespace(
                    inner=inner,
                    n_weights=inner.n_weights,
                    run=opened(inner.run),
                    run_gradient=opened(inner.run_gradient),
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
                    step=step, average=lambda out, stream: np.copyto(machine.numbers(out), inner.average())
                )

            return make

        def points(kind):
            def make(x, weights, stream):
                inner = kind(machine.numbers(x), machine.numbers(weights))
                return types.SimpleNamespace(
                    step=lambda *arguments: inner.step(*arguments[:-1]),
                    values=lambda out, stream: np.copyto(machine.numbers(out), inner.values()),
                    log_jacobian=lambda out, stream: np.copyto(machine.numbers(out), inner.log_jacobian()),
                )

            return make

        self.MaskedOptions, self.MaskedTransform = MaskedOptions, MaskedTransform
        for suffix in ("F32", "F64"):
            setattr(self, f"Program{suffix}", programs(getattr(cpu, f"Program{suffix}")))
            setattr(self, f"Adam{suffix}", optimisers(getattr(cpu, f"Adam{suffix}")))
            setattr(self, f"Points{suffix}", points(getattr(cpu, f"Points{suffix}")))


def is_told(argument):
    return isinstance(argument, tuple) and len(argument) == 4 and isinstance(argument[3], str)
