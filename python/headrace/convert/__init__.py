"""Trained models of other libraries as flows of headrace: the same density, sampled in one pass.

    from headrace import convert

    flow = convert.from_sbi(posterior)  # a headrace.Flow
    samples = flow.sample(10_000, context=observation)

Each function recognises the parts of a model by their classes, or by a base class from a library if no formula is
overridden, and reads settings from attributes. Nothing is guessed, and an unknown part raises an error with its name;
`register` takes functions that read parts of other classes. Log densities of the converted flow are compared with the
model's for some rows. Another library is imported only to convert its models. `to_torch` and `to_zuko` convert flows of
headrace.
"""

from headrace.convert._flowjax import from_flowjax
from headrace.convert._flowtorch import from_flowtorch
from headrace.convert._glasflow import from_glasflow
from headrace.convert._nflows import from_nflows
from headrace.convert._normflows import from_normflows
from headrace.convert._parts import register
from headrace.convert._sbi import from_sbi
from headrace.convert._to_torch import to_torch
from headrace.convert._to_zuko import to_zuko
from headrace.convert._zuko import from_zuko

__all__ = [
    "from_flowjax",
    "from_flowtorch",
    "from_glasflow",
    "from_nflows",
    "from_normflows",
    "from_sbi",
    "from_zuko",
    "register",
    "to_torch",
    "to_zuko",
]
