"""`headrace.accelerate`: a model of another library computes with headrace's core and keeps its interface."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from headrace._base import arguments as check
from headrace.convert import from_glasflow, from_nflows, from_normflows, from_zuko


def accelerate(model: Any, *, verify: bool = True) -> Any:
    """The model, computed by headrace: densities, samples and gradients from one network pass in both directions.

    The result has the methods of the model, so that code around it runs unchanged: a flow of zuko is called
    with a context and gives a distribution; flows of nflows, glasflow and normflows have `sample`, `log_prob` and their
    other methods; a density estimator of sbi stays one, and a posterior of sbi samples, evaluates, finds its mode and
    takes many observations as before. A builder, such as ``sbi.neural_nets.posterior_nn("nsf")``, becomes a builder
    of estimators that sbi's trainers train on headrace's core. Embedding nets stay in PyTorch. `model` is unchanged.
    It loads states that the model saved.
    The result may be trained further: its parameters are one vector (`headrace.torch.FlowModule`), its batch norms are
    fixed. A model in training mode with batch norm, dropout or an act norm that no rows have started is refused: its
    density is another one in evaluation mode, which headrace computes. Call ``model.eval()`` first.

    Args:
        model: A flow of zuko, nflows, normflows or glasflow; an estimator, a posterior or a builder of sbi.
        verify: Whether to compare log densities of some rows with the model's, see `headrace.convert`.

    Raises:
        TypeError: something else.
        NotImplementedError, ValueError: see `headrace.convert`; a model in training mode with a layer as above.
    """
    packages = {kind.__module__.split(".")[0] for kind in type(model).__mro__}
    packages.add(str(getattr(model, "__module__", "")).split(".")[0])  # of a function
    if "sbi" in packages:
        from headrace.integrations import sbi

        return sbi.accelerate(model, verify=verify)
    if not packages & {"zuko", "nflows", "glasflow", "normflows"}:
        raise TypeError(
            "model: expected a model of zuko, nflows, normflows, glasflow or sbi, or a builder that sbi made, got "
            f"{check.kind_of(model)}; headrace.convert takes models of flowjax, and "
            "headrace.integrations.sbi.accelerate builders of your own"
        )
    from headrace.torch import faces

    convert: Any
    if "zuko" in packages:
        convert = from_zuko
        face: Any = faces.ZukoFace(convert(model, verify=verify))
    elif "normflows" in packages:
        convert = from_normflows
        conditional = any(kind.__name__ == "ConditionalNormalizingFlow" for kind in type(model).__mro__)
        kind = faces.ConditionalNormflowsFace if conditional else faces.NormflowsFace
        face = kind(convert(model, verify=verify), copy.deepcopy(getattr(model, "p", None)))
    elif hasattr(model, "_embedding_net"):
        convert = partial(from_nflows, embedding="outside")
        face = faces.NflowsFace(convert(model, verify=verify), copy.deepcopy(model._embedding_net))
    else:
        convert = from_glasflow
        face = faces.GlasflowFace(convert(model, verify=verify))
    face._original = (copy.deepcopy(model), convert)
    return _same_mode(face, model)


def _same_mode(face: Any, model: Any) -> Any:
    """The replacement on the model's device, and in its mode of training."""
    device = next((p.device for p in model.parameters()), None)
    return face.to(device).train(model.training)
