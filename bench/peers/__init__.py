"""The same workloads in headrace and in other libraries, each library in another process."""

# Library name -> (module of `adapters`, options of its `build`).
ADAPTERS: dict[str, tuple[str, dict]] = {
    "headrace": ("headrace", {}),
    "headrace_tf32": ("headrace", {"matmul": "tf32"}),  # on a CUDA device alone
    "headrace_bf16": ("headrace", {"matmul": "bf16"}),
    "headrace_bf16_tiles": ("headrace", {"matmul": "bf16_tiles"}),
    "headrace_jax": ("headrace_jax", {}),  # compiled by JAX, for comparison with flowjax
    "zuko": ("zuko", {}),
    "zuko_compiled": ("zuko", {"compiled": True}),
    "zuko_autocast": ("zuko", {"compiled": True, "autocast": True}),
    "nflows": ("nflows", {}),
    "normflows": ("normflows", {}),
    "freia": ("freia", {}),
    "flowjax": ("flowjax", {}),
}
# Libraries whose factors are rounded to bf16, on the CPU: they compare with each other, and no ratio or aim counts
# them.
IN_BF16 = ("headrace_bf16", "headrace_bf16_tiles", "zuko_autocast")
