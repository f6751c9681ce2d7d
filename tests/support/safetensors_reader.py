"""A reader of headrace's files without headrace, written from docs/files.md alone, which makes flows of the
reference."""

import json
import zlib

import numpy as np
import safetensors
import safetensors.numpy

import reference


def read(path):
    """The reference flow or transform of a file."""
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    header, tensors = json.loads(metadata["headrace"]), safetensors.numpy.load_file(path)
    assert header["format"] in (1, 2, 3)
    if header["format"] > 1:
        everything = b"".join([metadata["headrace"].encode(), *(tensors[name].tobytes() for name in sorted(tensors))])
        assert f"{zlib.crc32(everything):08x}" == metadata["headrace_crc32"]
    if "members" in header:
        members = [_flow(part, tensors, f"members.{i}.") for i, part in enumerate(header["members"])]
        return reference.Mixture(members, header["weights"])
    if header["kind"] in ("SequenceFlow", "WaveNet"):
        return _sequence_flow(header, tensors)
    return _flow(header, tensors, "") if "transforms" in header else _transform(header, tensors, "")


def _sequence_flow(header, tensors):
    chain = []
    for i, part in enumerate(header["transforms"]):
        prefix = f"transforms.{i}."
        if part["kind"] == "CausalConvolution":
            chain.append(_causal(part, tensors, prefix))
        elif part["kind"] == "LinearPrediction":
            chain.append(reference.LinearPrediction(tensors[f"{prefix}reflection"]))
        else:
            chain.append(reference.PerStep(_transform(part, tensors, prefix)))
    flow = reference.SequenceFlow(chain, _base(header["base"], tensors, ""))
    scale = header.get("standardize_context")
    return flow if scale is None else _Scaled(flow, scale)


class _Scaled:
    """A flow, of rows or of sequences, whose networks read the standardised context, (context - mean) / std."""

    def __init__(self, flow, scale):
        self.flow, self.mean, self.std = flow, np.asarray(scale["mean"]), np.asarray(scale["std"])

    def __getattr__(self, name):
        found = getattr(self.flow, name)

        def call(value, context=None, covariates=None):
            scaled = (np.asarray(context, np.float64) - self.mean) / self.std
            return found(value, scaled) if covariates is None else found(value, scaled, covariates)

        return call if callable(found) else found


def _causal(header, tensors, prefix):
    own = {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
    network = reference.CausalNetwork(
        own, tuple(header["dilations"]), header.get("hop", 1), header.get("companded", False)
    )
    has = [bool(header["context"]), bool(header.get("covariates"))]
    if "inner" in header:
        inner = _flow(header["inner"], tensors, f"{prefix}inner.")
        return _Reading(reference.CausalFlow(network, reads=header["reads"], inner=inner), has)
    options = reference.Options(header["scale"], header["slope"], header["bound"], header.get("min_bin", 1e-3))
    level = header.get("level", False)
    return _Reading(reference.CausalTransform(network, header["map"], header["reads"], options, level), has)


class _Reading:
    """A transform over time whose network reads only those inputs for which it has weights."""

    def __init__(self, transform, has):
        self.transform, self.has = transform, has

    def _given(self, *given):
        return [one if has else None for one, has in zip(given, self.has, strict=True)]

    def forward(self, z, context=None, covariates=None):
        return self.transform.forward(z, *self._given(context, covariates))

    def inverse(self, x, context=None, covariates=None):
        return self.transform.inverse(x, *self._given(context, covariates))


def _flow(header, tensors, prefix):
    chain = [_transform(part, tensors, f"{prefix}transforms.{i}.") for i, part in enumerate(header["transforms"])]
    flow = reference.Flow(chain, _base(header["base"], tensors, prefix))
    scale = header["standardize_context"]
    return flow if scale is None else _Scaled(flow, scale)


def _base(header, tensors, prefix):
    start = f"{prefix}base."
    wide = {name.removeprefix(start): a.astype(np.float64) for name, a in tensors.items() if name.startswith(start)}
    if header["kind"] == "StudentT":
        df = np.exp(wide["log_df"]) if header["trainable"] else np.array(header["df"])
        return reference.StudentT(df)
    if header["kind"] == "NormalMixture":
        if header["trainable"]:
            return reference.NormalMixture(wide["logits"], wide["loc"], np.exp(wide["log_scale"]))
        loc, scale = np.array(header["loc"]), np.array(header["scale"])
        return reference.NormalMixture(np.log(header["weights"]), loc, scale)
    if header["kind"] == "Independent":
        return reference.Independent(header["densities"])
    if header["kind"] == "Uniform":
        return reference.Uniform()
    if header["kind"] != "Normal":
        return {"StandardNormal": reference.StandardNormal, "Logistic": reference.Logistic}[header["kind"]]()
    if not header["trainable"]:
        return reference.Normal(np.array(header["loc"]), np.array(header["scale"]))
    return reference.Normal(
        tensors[f"{prefix}base.loc"].astype(np.float64), np.exp(tensors[f"{prefix}base.log_scale"].astype(np.float64))
    )


def _transform(header, tensors, prefix):
    kind = header["kind"]
    if kind == "Inverse":
        return reference.Inverse(_transform(header["transform"], tensors, prefix))
    if kind == "OnColumns":
        return reference.OnColumns(_transform(header["transform"], tensors, prefix), header["columns"])
    if kind == "Permutation":
        return reference.Permutation(header["order"])
    if kind == "Support":
        return reference.Support(header["bounds"], header.get("periodic"), header.get("linear", False))
    if kind == "Standardize":
        return reference.Standardize(np.array(header["mean"]), np.array(header["std"]))
    if kind == "Rotation":
        return _Rotation(_matrix(header, tensors, prefix))
    if kind == "Elementwise":
        names = reference.MAPS[header["map"]].parameters
        return _Elementwise(header, np.concatenate([tensors[prefix + name] for name in names], axis=1))
    if kind == "Gaussianize":
        raw = np.concatenate([tensors[prefix + name] for name in ("width", "height", "derivative")], axis=1)
        x, y, slopes = reference.additive_knots(raw, "free", header["slope"], header["bound"], header["min_bin"])
        mean, std = (np.array(header[name])[:, None] for name in ("mean", "std"))
        return reference.Gaussianize(mean + std * x, y[0], slopes / std)
    if kind == "Linear":
        named = {name: tensors[prefix + name] for name in ("upper", "log_diagonal", "lower", "shift")}
        return reference.Linear(**named, order=header["order"], signs=header["signs"])
    if kind == "ActNorm":
        scale = np.exp(tensors[prefix + "log_scale"].astype(np.float64))
        return reference.Standardize(tensors[prefix + "shift"].astype(np.float64), scale)
    if kind in ("Planar", "Radial"):
        return _vector(header, tensors, prefix)
    layers = sum(name.startswith(f"{prefix}layers.") and name.endswith(".weight") for name in tensors)
    lists = [[tensors[f"{prefix}layers.{i}.{what}"] for i in range(layers)] for what in ("weight", "bias", "mask")]
    hidden = [reference.Hidden(part["activation"], part.get("adds")) for part in header.get("network", [])]
    # This reader supports no layers with a context.
    network = reference.Network(*lists, header["activation"], hidden or None)
    settings = {key: header[key] for key in ("map", "scale", "slope", "formula", "bound", "layout")}
    settings["outputs"] = tuple(header["outputs"])
    if "min_bin" in header:
        settings["min_bin"] = header["min_bin"]
    context = header["context"]
    if kind == "Coupling":
        transform = reference.Coupling(network, header["features"], header["passive"], **settings)
    else:
        transform = reference.MaskedAutoregressive(network, reads=header["reads"], **settings)
    return transform if context else _WithoutContext(transform)


def _vector(header, tensors, prefix):
    names = {"Planar": ("w", "u", "b"), "Radial": ("center", "alpha", "beta")}[header["kind"]]
    settings = (header["nonlinearity"], header["negative_slope"]) if header["kind"] == "Planar" else ()
    if header["context"]:
        layers = sum(name.startswith(f"{prefix}layers.") and name.endswith(".weight") for name in tensors)
        weights, biases = (
            [tensors[f"{prefix}layers.{i}.{what}"] for i in range(layers)] for what in ("weight", "bias")
        )
        params = reference.Network(weights, biases, [np.ones(w.shape, bool) for w in weights], header["activation"])
    else:
        params = np.concatenate([tensors[prefix + name] for name in names])
    transform = getattr(reference, header["kind"])(params, *settings)
    return transform if header["context"] else _WithoutContext(transform)


def _matrix(header, tensors, prefix):
    n = header["features"]
    if "matrix" in header:
        return np.array(header["matrix"]).reshape(n, n)
    matrix, numbers, start = np.zeros((n, n)), tensors[prefix + "blocks"], 0
    for size in header["blocks"]:
        matrix[start : start + size, start : start + size] = numbers[: size * size].reshape(size, size)
        numbers, start = numbers[size * size :], start + size
    return matrix


class _Rotation:
    """The rotation x = Q z."""

    def __init__(self, matrix):
        self.matrix = matrix

    def forward(self, z, context=None):
        return np.asarray(z, np.float64) @ self.matrix.T, np.zeros(len(z))

    def inverse(self, x, context=None):
        return np.asarray(x, np.float64) @ self.matrix, np.zeros(len(x))


class _Elementwise:
    """A map of each coordinate; each row of the table has the parameters of one coordinate."""

    def __init__(self, header, table):
        self.table, self.to_data = table, header["formula"] == "to_data"
        self.settings = {key: header[key] for key in ("map", "scale", "slope", "bound")}
        if "min_bin" in header:
            self.settings["min_bin"] = header["min_bin"]

    def _apply(self, value, inverse):
        params = np.broadcast_to(self.table, (len(value), *self.table.shape))
        return reference.apply_map(value, params, inverse=inverse, **self.settings)

    def forward(self, z, context=None):
        return self._apply(z, not self.to_data)

    def inverse(self, x, context=None):
        return self._apply(x, self.to_data)


class _WithoutContext:
    """A transform without context, in a flow whose other transforms have a context."""

    def __init__(self, transform):
        self.transform = transform

    def forward(self, z, context=None):
        return self.transform.forward(z)

    def inverse(self, x, context=None):
        return self.transform.inverse(x)
