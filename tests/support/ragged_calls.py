"""Calls of every kernel of the CPU with numbers of rows and steps that do not fill vectors, for valgrind: ``.ci/run
memory``.

    python tests/support/ragged_calls.py [WORD ...]      the calls whose names have one of the words
    python tests/support/ragged_calls.py --judge LOG     fails if a report of valgrind has a function of headrace

Every call runs in a new thread, because memory that a thread keeps has been written from its second call on.
"""

import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import bf16_cases
import cases
import file_cases
import gradients
import headrace as hr
import map_cases
import network_cases
import reference
import sequence_cases
import vector_cases

ROWS = (1, 7, 17)


def ops():
    for (map, scale), dtype, n in _product(map_cases.MAPS_AND_SCALES, cases.DTYPES, (1, 3, 19)):
        for direction in map_cases.JUDGES:
            values, params, *by = map_cases.gradient_batch(n, 1, map, dtype)
            settings = {"scale": scale} if map == "affine" else {}
            yield f"{map} {scale} {direction} {n}", _coupling(direction, values, params, by, map, settings)
    for variant, dtype, n in _product(vector_cases.VARIANTS, cases.DTYPES, ROWS):
        for per_row in (False, True):
            yield f"{variant} {n}", _vector(variant, *vector_cases.batch(variant, n, 3, dtype, per_row=per_row))
    for n, dtype in _product((1, 7, 130), cases.DTYPES):
        yield f"step of dual ascent {n}", _ascent_step(n, dtype)


def _coupling(direction, values, params, by, map, settings):
    def run():
        moved = map_cases.KERNELS[direction](values, params, map, **settings)
        return moved, hr.ops.coupling_vjp(values, params, *by, map, direction=direction, **settings)

    return run


def _vector(variant, values, params, by_values, by_log_det):
    map, settings = vector_cases.VARIANTS[variant]

    def run():
        results = []
        for direction in ("forward", "inverse"):
            given = {"direction": direction, **settings}
            results.append(hr.ops.vector_map(values, params, map, **given))
            results.append(hr.ops.vector_map_vjp(values, params, by_values, by_log_det, map, **given))
        return results

    return run


def _ascent_step(n, dtype):
    maps, same = np.array([[0.5, 0.1, 1.0]] * 3), np.eye(3)

    def run():
        z, each = cases.rows(n, 3, dtype), ((None, None), (maps[:, 1:], None), (maps[:, 1:], np.ones(n)))
        return [hr.ops.dual_ascent_step(z, maps, same, np.zeros(3), next, weights=weights) for next, weights in each]

    return run


def of_rows():
    """Calls of flows and transforms: each kind that a file may hold, each form of a network, activations, and products
    in bf16."""
    for name, dtype in _product(file_cases.EXAMPLES, cases.DTYPES):
        yield f"{name} {dtype}", _example(file_cases.EXAMPLES[name], dtype)
    modules = {name: _described(name) for name in network_cases.NETWORKS}
    modules |= {name: gradients.HOLDERS[name] for name in gradients.HOLDERS}
    modules |= {name: _activated(name) for name in reference.ACTIVATIONS}
    for name, dtype in _product(modules, cases.DTYPES):
        yield f"{name} {dtype}", _module(modules[name], dtype)
    for name, matmul in _product(bf16_cases.NETWORKS, bf16_cases.PARTS):
        yield f"{name} {matmul}", _module(lambda _, n=name, m=matmul: bf16_cases.network_case(n, m)[0], "float32")
    yield "fit with dropout", _fit_with_dropout


def _fit_with_dropout():
    flow = hr.MAF(3, dropout=0.2, hidden=(9,))
    flow.fit(cases.rows(77, 3, "float32"), epochs=2, progress=False)
    return flow.parameters


def _described(name):
    def make(dtype):
        dense, network, joins = network_cases.made(name, dtype=dtype)
        return network_cases.subject(dense, network, joins).library

    return make


def _activated(activation):
    return lambda dtype: cases.randomise(
        hr.transforms.Coupling(3, [1], (9, 7), activation=activation, dtype=dtype), 0.3
    )


def _example(make, dtype):
    def run():
        module = make(dtype)
        x, context = file_cases.inputs_of(module)
        for n in ROWS:
            some = x[:n], None if context is None else context[:n]
            yield lambda some=some: file_cases.results_of(module, *some)
            yield lambda some=some, n=n: _backward(module, *some)
            if isinstance(module, hr.Flow | hr.Ensemble):
                yield lambda some=some, n=n: module.sample(n, *some[1:], seed=1)

    return run


def _module(make, dtype):
    def run():
        module = make(dtype)
        for n in ROWS:
            context = cases.rows(n, module.context, dtype, "context") if module.context else None
            x = cases.rows(n, module.features, dtype)
            yield lambda x=x, context=context: file_cases.results_of(module, x, context)
            yield lambda x=x, context=context: _backward(module, x, context)

    return run


def _backward(module, x, context):
    if isinstance(module, hr.Ensemble) or not len(getattr(module, "parameters", ())):
        return None
    verbs = gradients.FLOW_VERBS if isinstance(module, hr.Flow) else gradients.TRANSFORM_VERBS
    return [gradients.call(module, verb, x, context, dtype=x.dtype.name) for verb in verbs]


def of_steps():
    """Calls with sequences in both directions, as streams, in panels of streams and in windows, and calls for
    gradients."""
    makers = dict(sequence_cases.EXAMPLES)
    makers |= {"audio": sequence_cases._audio, "bf16": sequence_cases._in_bf16}
    makers["covariates"] = lambda dtype: sequence_cases.wavenet(
        "covariates", covariates=3, hop=4, context=2, layers=3, dtype=dtype
    )
    for name, dtype in _product(makers, cases.DTYPES):
        yield f"sequences {name} {dtype}", _sequences(makers[name], dtype)


def _sequences(make, dtype):
    def run():
        flow = sequence_cases.flow_of(make(dtype))
        for rows, steps in ((1, 11), (3, 41), (17, 5)):
            given = sequence_cases.streamed(flow, rows, steps)
            yield lambda given=given: sequence_cases.results_of(flow, *given)
            yield lambda given=given, rows=rows, steps=steps: flow.sample(
                rows, steps=steps, context=given[1], covariates=given[2], seed=0
            )
            kinds = ("inputs", "parameters") + ("context",) * bool(flow.context)
            kinds += ("covariates",) * bool(flow.covariates)
            ones = np.ones((rows, steps), flow.dtype)
            if not getattr(flow, "matmul", None):
                yield lambda given=given, ones=ones, kinds=kinds: flow.log_prob_vjp(
                    given[0], ones, *given[1:], wrt=kinds
                )
        x, context, covariates = sequence_cases.streamed(flow, 2, 48)

        def stream():
            state = flow.stream(2, context=context, covariates=covariates)
            return [state.push(part) for part in sequence_cases.cut(x[:, :41])], state.pull(3, seed=0)

        yield stream

    return run


def _product(first, *rest):
    for one in first:
        for others in _product(*rest) if rest else [()]:
            yield (one, *others)


def in_a_thread(name, call):
    """Run a call in a thread; if the call returns an iterator, run each of its parts in a further thread."""
    result = []

    def run():
        try:
            made = call()
            result.append(list(made) if isinstance(made, Iterator) else None)
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(result[0], BaseException):
        raise RuntimeError(name) from result[0]
    for part in result[0] or ():
        in_a_thread(name, part)


def reports_in(log):
    """The reports of valgrind whose stack has a function of headrace."""
    blocks = re.split(r"^==\d+== *$", Path(log).read_text(errors="replace"), flags=re.MULTILINE)
    return [block for block in blocks if " at 0x" in block and re.search(r"headrace::|_cpu\.|libheadrace", block)]


def main(words):
    hr.set_num_threads(1)
    count = 0
    for calls in (ops, of_rows, of_steps):
        for name, call in calls():
            if not words or any(word in name for word in words):
                print(name, flush=True)
                in_a_thread(name, call)
                count += 1
    print(f"{count} calls, instruction set {hr.info()['isa']}")


def judge(log):
    text = Path(log).read_text(errors="replace")
    if "ERROR SUMMARY" not in text:
        sys.exit(
            f"{log}: expected the log of a run of valgrind that ended, got {len(text)} characters without a summary"
        )
    reports = reports_in(log)
    print(*reports[:10], f"*** {len(reports)} reports of valgrind in headrace", sep="\n")
    sys.exit(bool(reports))


if __name__ == "__main__":
    judge(sys.argv[2]) if sys.argv[1:2] == ["--judge"] else main(sys.argv[1:])
