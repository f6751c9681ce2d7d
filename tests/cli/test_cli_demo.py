"""`headrace bench` counts arithmetic, and `headrace demo` fits stars."""

import sys

import numpy as np
import pytest

import headrace as hr
from headrace._cli import bench as _bench
from headrace._cli import demo

pytestmark = pytest.mark.programs


@pytest.mark.costly
def test_bench(run, result, monkeypatch):
    monkeypatch.setattr(_bench, "LEAST_CALLS", 1)
    monkeypatch.setattr(_bench, "copy_bandwidth", lambda megabytes: 20.0)
    report = result("bench", "--quick")
    assert report["peak_gflops"] > 0
    assert report["copy_gb_per_second"] == 20.0
    names = [one["name"] for one in report["workloads"]]
    assert len(set(names)) == len(names) == 12
    for one in report["workloads"]:
        assert one["rows_per_second"] * one["seconds"] == pytest.approx(int(one["name"].split()[-1].replace(",", "")))
        shares = {
            "arithmetic": one["gflops"] / report["peak_gflops"],
            "memory": one["gb_per_second"] / report["copy_gb_per_second"],
        }
        assert one["share"] == pytest.approx(max(shares.values()))
        assert shares[one["bound"]] == max(shares.values())
    assert report["workloads"][-1]["bound"] == "memory"
    monkeypatch.setattr(_bench, "workloads", lambda: iter([_bench._of_map(10, 2)]))
    code, out, _ = run("bench", "--quick")
    assert code == 0
    assert "roofline: " in out
    assert "ops.coupling 2 columns 10" in out


def test_copy_bandwidth():
    assert _bench.copy_bandwidth(megabytes=1, repeats=2) > 0


@pytest.mark.parametrize("make", [hr.MAF, hr.IAF, hr.RealNVP, hr.NSF])
def test_bench_counts_the_arithmetic(make):
    """Operations are counted by weights: each weight counts once, and in training three times, except in the first
    layer at the data's side.
    """
    flow = make(5, transforms=2, hidden=(16, 8))  # the two couplings differ in their numbers of columns
    layers = [[np.count_nonzero(mask) for mask in t.to_dense()[2]] for t in flow.transforms[:-1]]
    assert _bench.needed_flops(flow) == 2 * sum(map(sum, layers))
    assert _bench.needed_flops(flow, training=True) == 6 * sum(map(sum, layers)) - 2 * layers[1][0]


@pytest.fixture
def small_table(monkeypatch):
    """Let the demo have a few hundred stars."""
    train, held_out = demo.load_stars()
    monkeypatch.setattr(demo, "load_stars", lambda: (train[:400], held_out[:100]))
    monkeypatch.setattr(demo, "PIXELS", 40)


@pytest.mark.costly
def test_demo(folder, run, result, small_table):
    pytest.importorskip("matplotlib")
    report = result("demo", "--epochs", 2, "--seed", 1, "--quiet")
    assert list(report["log_likelihood"]) == ["Gaussian", "kernel density", "MAF", "NSF"]
    assert report["picture"] == "hr_diagram.png"
    assert (folder / "hr_diagram.png").read_bytes().startswith(b"\x89PNG")
    code, out, err = run("demo", "--epochs", 2, "-o", "stars.svg")
    assert code == 0
    assert "kernel density" in out
    assert "fitting 400 stars" in err
    assert (folder / "stars.svg").exists()


def test_demo_without_matplotlib(folder, run, small_table, monkeypatch):
    monkeypatch.setattr(demo, "can_draw", lambda: False)
    code, out, err = run("demo", "--epochs", 1)
    assert code == 0
    assert "picture" not in out
    assert 'no picture: pictures need matplotlib: pip install ".[plot]"' in err
    code, out, err = run("demo", "-o", "stars.png")
    assert (code, out) == (1, "")
    assert 'pip install ".[plot]"' in err


def test_demo_draws_nothing_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install \"\.\[plot\]\""):
        demo.draw("x.png", np.empty((0, 2)), {}, [])


def test_stars_are_those_of_the_published_split():
    """The Gaussian of the training stars gives the held-out stars −2.82 nats, in units of the standard deviations."""
    train, held_out = demo.load_stars()
    assert train.shape == (53916, 2)
    assert held_out.shape == (5993, 2)
    assert np.isfinite(train).all()
    assert np.isfinite(held_out).all()
    value = demo.gaussian_log_prob(train, held_out).mean() + np.log(train.std(axis=0, dtype="f8")).sum()
    assert value == pytest.approx(-2.8247, abs=1e-4)
