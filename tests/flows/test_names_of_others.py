"""Errors about names and arguments of other libraries give the names and arguments of headrace."""

import pytest

import headrace as hr


class ReLU:
    """A stand-in for PyTorch's module `ReLU`."""


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: hr.NSF(3, hidden=64), TypeError, r"^hidden: .*got int 64; for one give \(64,\)$"),
        (lambda: hr.NSF(3, randperm=True), TypeError, r"^randperm: .*; transforms have reversed orders .* order=$"),
        (
            lambda: hr.transforms.Elementwise(1, direction="to_data"),
            TypeError,
            r"^direction: .*; did you mean formula\?$",
        ),
        (lambda: hr.NSF(3, activation=ReLU), ValueError, r"^activation: .*; did you mean 'relu'\?$"),
        (lambda: hr.NSF(3, activation=ReLU()), ValueError, r"^activation: .*; did you mean 'relu'\?$"),
        (lambda: hr.NSF(3, activation="LeakyReLU"), ValueError, r"^activation: .*; did you mean 'leaky_relu'\?$"),
        (lambda: hr.NSF(3, activation="swish"), ValueError, r"^activation: .*got 'swish'$"),
        (lambda: hr.FlowDensity, AttributeError, r"; it is headrace\.sklearn\.FlowDensity$"),
        (lambda: hr.NeuralSplineFlow, AttributeError, r"; it is headrace\.NSF$"),
        (lambda: hr.nothing, AttributeError, r"has no attribute 'nothing'$"),
        (lambda: hr.MAF(2).forward, AttributeError, r"^'MAF' object has no attribute 'forward'; call to_data\(z\)"),
        (lambda: hr.MAF(2).inverse, AttributeError, r"; call to_latent\(x\)"),
        (lambda: hr.MAF(2).score, AttributeError, r"; call log_prob\(x\), or log_prob_vjp"),
        (lambda: hr.MAF(2).train, AttributeError, r"; call fit\(x\)"),
        (lambda: hr.MAF(2).nothing, AttributeError, r"^'MAF' object has no attribute 'nothing'$"),
    ],
)
def test_errors_name_headrace_s_argument(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_names_of_ops_are_the_public_ones():
    assert dir(hr.ops) == sorted(hr.ops.__all__)
