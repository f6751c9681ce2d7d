"""The same workloads in headrace and in other libraries, each in a process of its own."""

# Library name -> (module of this package, options of its `build`).
ADAPTERS: dict[str, tuple[str, dict]] = {
    "headrace": ("headrace_peer", {}),
    "headrace_tf32": ("headrace_peer", {"matmul": "tf32"}),  # on a CUDA device alone
    "headrace_jax": ("headrace_jax_peer", {}),  # compiled by JAX, beside flowjax
    "zuko": ("zuko_peer", {}),
    "zuko_compiled": ("zuko_peer", {"compiled": True}),
    "nflows": ("nflows_peer", {}),
    "normflows": ("normflows_peer", {}),
    "freia": ("freia_peer", {}),
    "flowjax": ("flowjax_peer", {}),
}
