"""Without the package onnx, `to_onnx` raises an error that names the package to install, and everything else works."""

import importlib.util
import sys

import pytest

import headrace as hr
from headrace._cli.cli import main


@pytest.fixture
def no_onnx(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[:2] == ["headrace", "onnx"]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(hr, "onnx", raising=False)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnx" else found(name, *a))


def test_the_error_names_the_package_to_install(no_onnx, tmp_path, capsys):
    flow = hr.MAF(2, transforms=1, hidden=(4,))
    with pytest.raises(ImportError, match=r'^onnx: expected it to be installed: pip install "\.\[onnx\]" in the clone'):
        flow.to_onnx(tmp_path / "flow.onnx")
    flow.save(tmp_path / "flow.safetensors")
    assert main(["export", str(tmp_path / "flow.safetensors"), "-o", str(tmp_path / "flow.onnx")]) == 1
    assert ".[onnx]" in capsys.readouterr().err
    assert not (tmp_path / "flow.onnx").exists()
