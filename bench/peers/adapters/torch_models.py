"""Helpers of the adapters of torch libraries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.peers.adapter import Model, UnsupportedError
from bench.peers.devices import Stopwatch, dry_stopwatch, torch_stopwatch
from bench.workloads import LEARNING_RATE, Workload


def setup(threads: int, device: str) -> None:
    """Import torch and set its threads; products on a device have full float32 precision."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ImportError(f"torch {torch.__version__} sees no CUDA device")
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(0)


def place(device: str) -> str:
    """The name of the device in torch."""
    return "cuda" if device == "cuda" else "cpu"


def stopwatch(device: str) -> Stopwatch | None:
    """A stopwatch of the device; `adapter` describes it."""
    return {"cpu": lambda: None, "cuda": torch_stopwatch, "dry": dry_stopwatch}[device]()


def model(
    workload: Workload,
    device: str,
    module: Any,
    log_prob: Callable[[Any], Any],
    sample: Callable[[int], Any],
    passes: int,
    **options: Any,
) -> Model:
    """The model of a module on its device, which is trained, or called in evaluation mode without gradients."""
    import torch

    if workload.verb == "train":
        options["train"] = optimiser_step(module, log_prob)
    else:
        module.eval()
        module.requires_grad_(False)
    return Model(
        log_prob=torch.inference_mode()(log_prob),
        sample=torch.inference_mode()(sample),
        to_native=lambda array: torch.from_numpy(array).to(place(device)),
        to_numpy=lambda result: result.cpu().numpy(),
        passes=passes,
        **options,
    )


def vector_model(device: str, transforms: Sequence[Any]) -> Model:
    """The model of transforms from latent to data, each ``z -> (value, log_det)``, that have no inverse."""
    import torch

    module = torch.nn.ModuleList(transforms).to(place(device))

    def forward(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_det = torch.zeros(len(z), device=z.device)
        for transform in module:
            z, one = transform(z)
            log_det += one
        return z, log_det

    optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)

    def fit_to_normal(z: torch.Tensor) -> torch.Tensor:
        x, log_det = forward(z)
        loss = (0.5 * (x * x).sum(1) - log_det).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Model(
        log_prob=_no_inverse,
        sample=_no_inverse,
        to_native=lambda array: torch.from_numpy(array).to(place(device)),
        to_numpy=lambda result: result.cpu().numpy(),
        forward=torch.inference_mode()(forward),
        fit_to_normal=fit_to_normal,
    )


def _no_inverse(_argument: Any) -> Any:
    raise UnsupportedError("the library has no inverse of these transforms")


def optimiser_step(module: Any, log_prob: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function that takes one step of torch's Adam and returns the loss before it."""
    import torch

    module.train()
    optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)

    def step(x: torch.Tensor) -> torch.Tensor:
        loss = -log_prob(x).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
