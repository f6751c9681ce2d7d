"""Flows of other libraries are accelerated without a change of the program that uses them."""

import copy
import logging
import pickle
import subprocess
import sys
import textwrap

import pytest
from numpy.testing import assert_allclose

import headrace as hr
from convert_cases import library
from headrace._cli.cli import main

pytestmark = pytest.mark.filterwarnings("ignore")  # deprecations within the libraries


@pytest.fixture
def zuko():
    return library("zuko")


@pytest.fixture
def torch():
    return library("torch")


def test_flows_of_zuko(torch, zuko, caplog):
    class Mine(zuko.flows.NSF):
        pass

    NSF = zuko.flows.NSF  # the name was imported before the acceleration
    torch.manual_seed(0)
    plain, after = NSF(3, 2, transforms=2), torch.rand(3)
    plain_state = {name: value.clone() for name, value in plain.state_dict().items()}
    with caplog.at_level(logging.INFO, "headrace.libraries"), hr.accelerate_libraries("zuko"):
        torch.manual_seed(0)
        fast = NSF(3, 2, transforms=2)
        assert torch.equal(torch.rand(3), after)
        assert isinstance(fast, NSF)
        assert type(fast) is not NSF
        assert type(zuko.flows.Flow(plain.transform, plain.base)) is type(fast)
        assert type(zuko.flows.NAF(3)) is zuko.flows.NAF
        assert type(Mine(3)) is Mine
        for again in (copy.deepcopy(plain), copy.copy(plain), pickle.loads(pickle.dumps(plain))):
            assert type(again) is NSF  # copies of a plain model are not accelerated
        assert type(pickle.loads(pickle.dumps(fast))) is type(fast)
        fast.load_state_dict(plain_state)
        with pytest.raises(TypeError, match="__init__"):
            NSF()
    x, c = torch.randn(5, 3), torch.randn(5, 2)
    assert_allclose(fast(c).log_prob(x).detach(), plain(c).log_prob(x).detach(), rtol=1e-5, atol=1e-5)
    assert type(NSF(3, 2)) is NSF
    assert type(pickle.loads(pickle.dumps(plain))) is type(copy.deepcopy(plain)) is NSF
    lines = [record.getMessage() for record in caplog.records]
    assert "zuko.flows.spline.NSF is accelerated" in lines
    (refused,) = (line for line in lines if "NAF" in line)
    assert refused.startswith(
        "zuko.flows.neural.NAF stays as it is: model.transform.transforms[0].univariate: expected"
    )
    assert "\n" not in refused
    assert not any("Mine" in line for line in lines)


def test_acceleration_within_another(zuko):
    outer = hr.accelerate_libraries("zuko")
    inner = hr.accelerate_libraries("zuko")
    inner.undo()
    assert type(zuko.flows.MAF(2)) is not zuko.flows.MAF
    outer.undo()
    outer.undo()
    assert type(zuko.flows.MAF(2)) is zuko.flows.MAF


def test_flows_of_nflows_and_normflows(torch):
    flows, nf = library("nflows.flows"), library("normflows")
    with hr.accelerate_libraries("nflows", "normflows"):
        maf = flows.MaskedAutoregressiveFlow(3, 8, 2, 2)
        norms = flows.SimpleRealNVP(3, 8, 2, 2, batch_norm_between_layers=True)
        base = nf.distributions.DiagGaussian(3)
        spline = nf.NormalizingFlow(base, [nf.flows.AutoregressiveRationalQuadraticSpline(3, 1, 8)])
    for model, kind in ((maf, flows.MaskedAutoregressiveFlow), (spline, nf.NormalizingFlow)):
        assert isinstance(model, kind)
        assert type(model) is not kind
        x = torch.randn(4, 3)
        assert_allclose(model.log_prob(x).detach(), hr.restore(model).log_prob(x).detach(), rtol=1e-5, atol=1e-5)
    assert type(norms) is flows.SimpleRealNVP  # in training mode the model has another density


@pytest.mark.costly
def test_estimators_of_sbi(torch):
    inference, utils, estimators = (library(f"sbi.{name}") for name in ("inference", "utils", "neural_nets.estimators"))
    prior = utils.BoxUniform(-2 * torch.ones(2), 2 * torch.ones(2))

    def trained(kind):
        torch.manual_seed(0)
        theta = prior.sample((300,))
        trainer = inference.NPE(prior, density_estimator=kind, show_progress_bars=False)
        trainer.append_simulations(theta, theta + 0.3 * torch.randn_like(theta)).train(max_num_epochs=3)
        return trainer

    for kind, name in (("maf", "NFlowsFlow"), ("zuko_nsf", "ZukoFlow")):
        slow = trained(kind)
        with hr.accelerate_libraries():
            fast = trained(kind)
        own, net = getattr(estimators, name), fast._neural_net
        assert isinstance(net, own)
        assert type(net) is not own
        losses = [t.summary["validation_loss"] for t in (fast, slow)]
        assert_allclose(*losses, rtol=1e-3)
        posterior = fast.build_posterior().set_default_x(torch.zeros(1, 2))
        back = hr.restore(posterior)
        assert type(back.posterior_estimator) is own
        rows = posterior.sample((50,), show_progress_bars=False)
        ours, theirs = (p.log_prob(rows, norm_posterior=False) for p in (posterior, back))
        assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_names_that_are_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"names: expected one of .*zuko"):
        hr.accelerate_libraries("numpy")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"names: expected an installed library, got 'zuko': pip install"):
        hr.accelerate_libraries("zuko")


# ---- programs --------------------------------------------------------------------------------------------------------


def run(tmp_path, text, *arguments):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(text))
    return subprocess.run(
        [sys.executable, "-m", "headrace", *arguments[:1], str(script), *arguments[1:]], capture_output=True, text=True
    )


def test_a_program_runs_as_python_runs_it(tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 5\n")
    result = run(
        tmp_path,
        """
        import pickle, sys, warnings
        import beside
        class Part: ...
        again = pickle.loads(pickle.dumps(Part()))
        print(__name__, sys.argv[1:], beside.VALUE, type(again) is Part, "torch" in sys.modules)
        warnings.warn("spoken")
        sys.exit("the end")
        """,
        "run", "--quiet", "-n",
    )  # fmt: skip
    assert result.stdout == "__main__ ['--quiet', '-n'] 5 True False\n"
    assert result.stderr.splitlines()[0].endswith("script.py:7: UserWarning: spoken")
    assert result.stderr.endswith("the end\n")
    assert result.returncode == 1


def test_errors_of_a_program_are_unchanged(tmp_path):
    result = run(tmp_path, "def f():\n    return {}[3]\n\n\nf()\n", "run")
    assert result.returncode == 1
    first, place = result.stderr.splitlines()[:2]
    assert (first, "script.py" in place) == ("Traceback (most recent call last):", True)
    assert result.stderr.endswith("KeyError: 3\n")


def test_flows_of_a_program_are_accelerated(tmp_path, zuko):
    text = """
        import zuko
        print(type(zuko.flows.MAF(2)).__module__)
        for _ in range(2):
            zuko.flows.MAF(2)
        """
    result = run(tmp_path, text, "run")
    assert result.stdout == "headrace.torch.faces\n"
    assert result.stderr == "headrace: zuko.flows.autoregressive.MAF is accelerated\n"
    assert result.returncode == 0


def test_a_missing_program(tmp_path, capsys):
    assert main(["run", str(tmp_path / "nothing.py")]) == 1
    assert capsys.readouterr().err == f"headrace: error: {tmp_path / 'nothing.py'}: No such file or directory\n"
