"""`headrace fit --auto`: the table is printed, and the best is saved."""

import numpy as np
import pytest

pytestmark = pytest.mark.programs


def write(path, x, names):
    np.savetxt(path, x, delimiter=",", header=names, comments="", fmt="%.10g")


def test_auto(folder, run, result):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((800, 2))
    x[:, 1] = 0.3 * x[:, 1] + x[:, 0] ** 2
    write("t.csv", x, "a,b")
    code, out, err = run("fit", "t.csv", "-o", "f.safetensors", "--auto", "--time-budget", 2)
    assert (code, err) == (0, "")
    assert "kernel density" in out
    assert "saved to f.safetensors" in out
    assert result("score", "f.safetensors", "t.csv", "-o", "l.npy")["rows"] == 800
    report = result("fit", "t.csv", "-o", "f.safetensors", "--auto", "--time-budget", 1, "--context", "b")
    assert report["context"] == 1
    assert report["table"][0]["name"] == report["name"]
    assert run("fit", "t.csv", "-o", "f", "--auto", "--epochs", 3)[0] == 2
    assert run("fit", "t.csv", "-o", "f", "--auto", "--ensemble", 3)[0] == 2
