"""``headrace export``: one function of a flow as an ONNX graph."""

from __future__ import annotations

import argparse
import os

import headrace as hr
from headrace._cli.commands import _check_output, _load
from headrace._cli.screen import OK, say

VERBS = ("log_prob", "to_latent", "to_data")  # of `Flow.to_onnx`


def export(arguments: argparse.Namespace) -> int:
    """Write a flow as an ONNX graph."""
    _check_output(arguments, arguments.flow)
    flow = _load(arguments.flow).flow
    if not isinstance(flow, hr.Flow):
        flow.to_onnx(arguments.output)  # refuses
    flow.to_onnx(arguments.output, arguments.verb)
    sizes = {"features": flow.features, "context": flow.context, "bytes": os.path.getsize(arguments.output)}
    report = {"file": arguments.output, "verb": arguments.verb, **sizes}
    say(arguments, report, [f"{arguments.verb} of {flow.features} features saved to {arguments.output}"])
    return OK
