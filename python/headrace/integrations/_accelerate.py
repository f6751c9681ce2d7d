"""`headrace.accelerate` and `headrace.restore`: models of other libraries moved to headrace's core, and back."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from headrace._base import arguments as check
from headrace.convert import from_glasflow, from_nflows, from_normflows, from_zuko
from headrace.convert._gathered import write_back
from headrace.convert._torch import keeping_dropout

LIBRARIES = frozenset(("zuko", "nflows", "glasflow", "normflows", "nessai"))


def accelerate(model: Any, *, verify: bool = True, dropout: str = "refuse") -> Any:
    """The model, computed by headrace: densities, samples and gradients take one network pass in either direction.

    The result has the methods of the model, so that code that uses the model runs unchanged: a flow of zuko takes a
    context and returns a distribution; flows of nflows, glasflow, nessai and normflows have `sample`, `log_prob` and
    their other methods; a density estimator of sbi stays an estimator, and a posterior of sbi samples, evaluates, finds
    its mode and takes many observations as before. A builder, such as ``sbi.neural_nets.posterior_nn("nsf")``, becomes
    a builder of estimators that sbi's trainers train on headrace's core. Embedding nets stay in PyTorch. For any other
    module of PyTorch the result is a copy of the module in which each flow is accelerated. `model` is unchanged. The
    result loads states that the model saved; `headrace.restore` returns the model with the current weights. The result
    may be trained further: its parameters are one vector (`headrace.torch.FlowModule`), and its batch norms are fixed.
    A model in training mode with batch norm, dropout or an uninitialised act norm is refused: headrace computes the
    density of evaluation mode, which differs. Call ``model.eval()`` first.

    Args:
        model: A flow of zuko, nflows, normflows, glasflow or nessai; an estimator, a posterior or a builder of sbi; a
            module with flows among its parts. A model that is accelerated already is returned unchanged.
        verify: Whether to compare log densities of some rows with the model's; see `headrace.convert`.
        dropout: "keep": in training mode `log_prob` omits units that headrace's dropout chooses, in the model's layers
            and with the model's shares, where gradients are computed; a seed is drawn from PyTorch's generator for each
            call. Samples omit no units. "refuse": a model in training mode is an error, and the result has no dropout.

    Raises:
        TypeError: `model` is not a model that headrace accelerates, and contains none.
        NotImplementedError, ValueError: see `headrace.convert`; a model in training mode has a layer whose evaluation
            mode differs; with "keep", a dropout does not follow the activation of a hidden layer.
    """
    keeps = check.choice("dropout", dropout, ("refuse", "keep")) == "keep"
    packages = _packages(model)
    if _is_face(model):
        return model
    if "sbi" in packages:
        from headrace.integrations import sbi

        return sbi.accelerate(model, verify=verify, dropout=dropout)
    if not packages & LIBRARIES:
        return _module(model, verify=verify, dropout=dropout)
    from headrace.torch import faces

    convert: Any = from_glasflow
    kind: Any = faces.NessaiFace if "nessai" in packages else faces.GlasflowFace
    parts: tuple[Any, ...] = ()
    if "zuko" in packages:
        convert, kind = from_zuko, faces.ZukoFace
    elif "normflows" in packages:
        convert = from_normflows
        conditional = any(kind.__name__ == "ConditionalNormalizingFlow" for kind in type(model).__mro__)
        kind = faces.ConditionalNormflowsFace if conditional else faces.NormflowsFace
        parts = (getattr(model, "p", None),)
    elif hasattr(model, "_embedding_net"):
        convert, kind, parts = partial(from_nflows, embedding="outside"), faces.NflowsFace, (model._embedding_net,)
    convert = partial(keeping_dropout, convert) if keeps else convert
    face = kind(convert(model, verify=verify), *copy.deepcopy(parts))
    if issubclass(kind, faces.GlasflowFace):
        face.device = getattr(model, "device", None)
    face._original = (copy.deepcopy(model), convert)
    face._module()._keeps_dropout = keeps
    return faces.same_mode(face, model)


def _packages(model: Any) -> set[str]:
    packages = {kind.__module__.split(".")[0] for kind in type(model).__mro__}
    return packages | {str(getattr(model, "__module__", "")).split(".")[0]}  # a function has its own `__module__`


def _is_face(part: Any) -> bool:
    """Whether a part of a model is an accelerated flow of another library."""
    return any(kind.__name__ == "Replacing" for kind in type(part).__mro__) and part._original is not None


def _is_flow(part: Any) -> bool:
    """Whether a module is a whole flow or estimator of a library, and not only a part of one."""
    return bool(_packages(part) & (LIBRARIES | {"sbi"})) and (
        all(hasattr(part, name) for name in ("_transform", "_distribution"))  # nflows, glasflow, nessai
        or all(hasattr(part, name) for name in ("flows", "q0"))  # normflows
        or any(kind.__name__ in ("Flow", "ConditionalDensityEstimator") for kind in type(part).__mro__)  # zuko, sbi
    )


def _outermost(model: Any, is_wanted: Any) -> dict[str, Any]:
    """The wanted parts of a module by their paths, without parts inside of wanted parts."""
    parts: dict[str, Any] = {}
    for path, part in model.named_modules():
        if is_wanted(part) and not any(path.startswith(f"{above}.") or not above for above in parts):
            parts[path] = part
    return parts


def _module(model: Any, **options: Any) -> Any:
    """A copy of a module in which each flow is accelerated."""
    flows = _outermost(model, _is_flow) if hasattr(model, "named_modules") else {}
    if not flows:
        raise TypeError(
            "model: expected a model of zuko, nflows, normflows, glasflow, nessai or sbi, a module with one among its "
            f"parts, or a builder that sbi made, got {check.kind_of(model)}; headrace.convert takes models of flowjax, "
            "and headrace.integrations.sbi.accelerate builders of your own"
        )
    memo: dict[int, Any] = {}
    for path, part in flows.items():
        try:
            memo[id(part)] = accelerate(part, **options)
        except (NotImplementedError, TypeError, ValueError) as error:
            raise type(error)(f"model.{path}: {error}") from error
    return copy.deepcopy(model, memo)


# ---- accelerated models back in their libraries ----------------------------------------------------------------------


def restore(accelerated: Any) -> Any:
    """The original of an accelerated model, in its own library, with the current weights.

    The state of the result can be loaded without headrace. Each parameter of the flow must be a parameter of the
    model, possibly shifted and scaled. Training may have changed only parameters: a flow whose standardisation
    `Flow.fit` has changed corresponds to no model of the library.

    Args:
        accelerated: The result of `headrace.accelerate`; for a module or a posterior of sbi with accelerated parts, the
            result is a copy with these parts restored.

    Raises:
        TypeError: the argument is not a result of `headrace.accelerate`, and contains no such result.
        NotImplementedError: a layer has merged parameters, such as batch norms and LU maps; the message has its class
            and its path.
        ValueError: the model cannot have the flow's density.
    """
    is_module = hasattr(accelerated, "named_modules")
    parts = [*_outermost(accelerated, _is_face).values()] if is_module else _estimators(accelerated)
    if not parts:
        got = check.kind_of(accelerated)
        raise TypeError(f"accelerated: expected a model that headrace.accelerate gave, got {got}")
    memo: dict[int, Any] = {id(part): _restored(part) for part in parts}
    return memo.get(id(accelerated)) or copy.deepcopy(accelerated, memo)


def _estimators(posterior: Any) -> list[Any]:
    if "sbi" not in _packages(posterior):
        return []
    from headrace.integrations import sbi

    return [one for one in sbi.estimators_of(posterior) if _is_face(one)]


def _restored(face: Any) -> Any:
    import torch

    from headrace.torch.faces import outside

    original, convert = face._original
    model, flow = copy.deepcopy(original), face._module().flow
    write_back(model, convert, flow)
    for theirs, ours in zip(outside(model), outside(face), strict=True):
        theirs.load_state_dict(ours.state_dict())
    if hasattr(model, "p"):  # a model of normflows has a target `p`
        model.p = copy.deepcopy(face.p)
    like = face._module()._like()
    torch.nn.Module.to(model, like.device, like.dtype)
    return model.train(face.training)
