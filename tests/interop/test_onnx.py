"""Graphs of ONNX, whose results in onnxruntime agree with the core's."""

import json

import numpy as np
import pytest

import cases
import file_cases
import headrace as hr
from headrace._cli.cli import main
from onnx_cases import VERBS, Session, assert_alike, errors, onnx

pytestmark = pytest.mark.programs

SEQUENTIAL = {
    "maf": ("to_data",),
    "maf-context": ("to_data",),
    "iaf": ("log_prob", "to_latent"),
    "nsf": ("to_data",),
    "everything": VERBS,
    "splines": ("to_data",),
    "support": ("to_data",),
    "gaussianize": ("to_data",),
    "on-columns": ("log_prob", "to_latent"),
    "periodic-maf": ("to_data",),
    "box": ("to_data",),
    "periodic-iaf": ("log_prob", "to_latent"),
    "periodic-nsf": ("to_data",),
}
# Only examples that are flows have the tested verbs; each transform that is an example is also in a chain of another
# example.
FLOWS = {name: make for name, make in file_cases.EXAMPLES.items() if isinstance(make("float32"), hr.Flow)}


def given_for(flow, verb):
    x, context = file_cases.inputs_of(flow)
    if verb == "to_data":
        return cases.rows(len(x), flow.features, "float32", "latent"), context
    return x.astype(np.float32), context


# ---- every kind -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimised", [True, False])
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", FLOWS)
def test_every_flow_that_is_parallel(name, verb, optimised, tmp_path):
    flow = FLOWS[name]("float32")
    given, context = given_for(flow, verb)
    if verb in SEQUENTIAL.get(name, ()):
        message = rf"^verb: expected a parallel direction, got '{verb}', for which transforms\[\d\] .*hr\.distill"
        with pytest.raises(ValueError, match=message):
            flow.to_onnx(tmp_path / "flow.onnx", verb)
        assert not (tmp_path / "flow.onnx").exists()
        return
    assert_alike(flow, verb, tmp_path / "flow.onnx", given, context, optimised=optimised)


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_of_float64_is_rounded(name, tmp_path):
    flow = FLOWS[name]("float64")
    verb = next((verb for verb in VERBS if verb not in SEQUENTIAL.get(name, ())), None)
    if verb is not None:
        given, context = given_for(flow, verb)
        assert_alike(flow, verb, tmp_path / "flow.onnx", given, context)


# ---- rows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 2, 1000])
@pytest.mark.parametrize("name", ["maf-context", "nsf-coupling", "planar-context", "splines", "normal-fixed"])
def test_any_number_of_rows(name, rows, tmp_path):
    flow = FLOWS[name]("float32")
    x = flow.sample(rows, cases.rows(rows, flow.context, "float32") if flow.context else None, seed=0)
    context = cases.rows(rows, flow.context, "float32") if flow.context else None
    assert_alike(flow, "log_prob", tmp_path / "flow.onnx", x, context)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", FLOWS)
def test_hard_rows_have_the_results_of_the_core(name, verb, tmp_path):
    """Results of NaN, infinite, zero, tiny, far and overflowing rows are finite where the core's are, and NaN where the
    core's are."""
    if verb in SEQUENTIAL.get(name, ()):
        return
    flow = FLOWS[name]("float32")
    given, context = given_for(flow, verb)
    given[1, 0], given[3, -1], given[5, 0] = np.nan, np.inf, np.finfo("float32").max
    given[7], given[8], given[9], given[10] = 1e3, 0.0, -1e6, 1e-30
    given[11], given[12] = 1e20, -1e20
    if context is not None:
        context[2, 0] = np.nan
    got = Session(flow, verb, tmp_path / "flow.onnx")(given, context)
    with np.errstate(all="ignore"):
        want = getattr(flow, verb)(given, context)
    for g, w in [(got, want)] if verb == "log_prob" else zip(got, want, strict=True):
        np.testing.assert_array_equal(np.isfinite(g), np.isfinite(w))
        np.testing.assert_array_equal(np.isneginf(g), np.isneginf(w))
    found = errors(flow, verb, got, want, given, context)
    good = np.isfinite(found).all(axis=0)
    assert good.sum() >= len(given) - 8
    assert found[:, good].max() <= 1e-5


@pytest.mark.parametrize("nonlinearity", ["tanh", "leaky_relu"])
@pytest.mark.parametrize("context", [0, 1])
def test_hard_planar_transforms(nonlinearity, context, tmp_path):
    """Inverses are tested for steep and nearly singular transforms, for w = 0, and for tiny and huge w."""
    for scale in (0.0, 1e-20, 0.1, 3.0, 30.0):
        for along in (-8.0, -1.0, 0.0, 1e-4, 50.0):
            t = hr.transforms.Planar(3, nonlinearity=nonlinearity, context=context, hidden=())
            w, u = scale * np.array([1.0, -0.5, 0.25], "f"), np.array([0.3, -0.1, 0.2], "f")
            u = u + (np.float32(along / 1.3125 / scale) * w / np.float32(scale) if scale > 1e-3 else 0 * u)
            if context:
                t.set_parameter("layers.0.weight", np.zeros((7, 1), "f"))
                t.set_parameter("layers.0.bias", np.concatenate([w, u, [0.1]]).astype("f"))
            else:
                for name, value in (("w", w), ("u", u), ("b", np.array([0.1], "f"))):
                    t.set_parameter(name, value)
            flow = hr.Flow([t])
            x = 3.0 * cases.rows(50, 3, "float32", "planar")
            given = np.zeros((50, 1), "f") if context else None
            judge = flow.astype("float64")
            for verb in ("to_latent", "to_data"):
                # Where the core's float32 is far from float64, the problem is ill-conditioned: the graph may err, too.
                want = getattr(judge, verb)(x, given)
                own = errors(judge, verb, [a.astype("f") for a in getattr(flow, verb)(x, given)], want, x, given)
                got = errors(judge, verb, Session(flow, verb, tmp_path / "flow.onnx")(x, given), want, x, given)
                assert got.max() <= max(1e-5, 4.0 * own.max()), (scale, along, verb)


# ---- the file and its callers ----------------------------------------------------------------------------------------


def test_the_graph_has_a_description(tmp_path):
    flow = FLOWS["maf-context"]("float32")
    flow.to_onnx(tmp_path / "flow.onnx")
    model = onnx.load(tmp_path / "flow.onnx")
    assert [one.version for one in model.opset_import] == [17]
    assert model.producer_name == "headrace"
    assert {p.key: p.value for p in model.metadata_props} == {"headrace_verb": "log_prob", "headrace_kind": "MAF"}
    names = [[one.name for one in part] for part in (model.graph.input, model.graph.output)]
    assert names == [["x", "context"], ["log_prob"]]
    flow.to_onnx(str(tmp_path / "again.onnx"))
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "flow.onnx").read_bytes()


def test_wrong_arguments(tmp_path):
    flow = FLOWS["realnvp"]("float32")
    with pytest.raises(ValueError, match="verb: expected one of 'log_prob', 'to_latent', 'to_data', got 'sample'"):
        flow.to_onnx(tmp_path / "flow.onnx", "sample")
    with pytest.raises(TypeError, match=r"path: expected a str or an os\.PathLike"):
        flow.to_onnx(3)
    with pytest.raises(FileNotFoundError):
        flow.to_onnx(tmp_path / "no folder" / "flow.onnx")


def test_the_command_line(tmp_path, capsys):
    flow = FLOWS["realnvp"]("float32")
    flow.save(tmp_path / "flow.safetensors")
    source, output = str(tmp_path / "flow.safetensors"), tmp_path / "flow.onnx"
    assert main(["export", source, "-o", str(output), "--verb", "to_latent", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {"file": str(output), "verb": "to_latent", "features": 3, "context": 1,
                      "bytes": output.stat().st_size}  # fmt: skip
    flow.to_onnx(tmp_path / "own.onnx", "to_latent")
    assert output.read_bytes() == (tmp_path / "own.onnx").read_bytes()
    hr.MAF(2).save(tmp_path / "maf.safetensors")
    assert main(["export", str(tmp_path / "maf.safetensors"), "-o", str(output), "--verb", "to_data"]) == 1
    assert "expected a parallel direction, got 'to_data'" in capsys.readouterr().err
    assert main(["export", source, "-o", str(tmp_path / "flow.txt")]) == 2
