"""Functions for flows of rows alone refuse flows of sequences by name."""

import pytest

import cases
import headrace as hr
import sequence_cases


@pytest.fixture(scope="module")
def flow():
    return sequence_cases.wavenet("refused", layers=2)


def test_devices_and_rounded_products(flow):
    """Whole flows on a device are tested in tests/device/test_device_sequences.py."""
    for device in ("cuda", "cuda:0"):
        with pytest.raises(ValueError, match="device: expected 'cpu', because transforms move with their flow, got"):
            flow.transforms[0].to(device)
    with pytest.raises(ValueError, match="matmul: expected one of 'exact', got 'tf32'"):
        flow.to("cuda", "tf32")
    with pytest.raises(ValueError, match="device: expected 'cpu', 'cuda' or a name like 'cuda:0', got 'gpu'"):
        flow.to("gpu")
    for thing in (flow, flow.transforms[0]):
        for matmul in ("bf16x3", "bf16_tiles", "tf32", None):
            with pytest.raises(ValueError, match="matmul: expected one of 'exact', 'bf16', got"):
                thing.to("cpu", matmul)


def test_onnx(flow, tmp_path):
    pytest.importorskip("onnx")
    from headrace import onnx

    with pytest.raises(TypeError, match="flow: expected a flow of rows, got WaveNet"):
        onnx.write(flow, tmp_path / "flow.onnx", "log_prob")


def test_zuko_and_torch(flow):
    pytest.importorskip("torch")
    from headrace import convert

    for name in ("to_torch", "to_zuko"):
        with pytest.raises(TypeError, match=r"flow: expected a headrace.Flow, got WaveNet"):
            getattr(convert, name)(flow)


def test_accelerate(flow):
    pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"model: expected a model of zuko.* got WaveNet"):
        hr.accelerate(flow)


TAKERS = {
    "Flow": lambda flow: hr.Flow(flow.transforms),
    "Ensemble": lambda flow: hr.Ensemble([flow]),
    "fit_to_density": lambda flow: hr.fit_to_density(flow, lambda x: x, steps=1, progress=False),
}


@pytest.mark.parametrize("name", TAKERS)
def test_functions_of_flows_of_rows(name, flow):
    with pytest.raises(TypeError, match="expected") as error:
        TAKERS[name](flow)
    cases.assert_says(error, "WaveNet|CausalConvolution")
