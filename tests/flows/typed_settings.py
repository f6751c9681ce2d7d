"""Settings that mypy has to refuse: an accepted line is an error, because its ``type: ignore`` is unused."""

import headrace as hr


def accepted() -> None:
    hr.MAF(2, 1, 5, (8,), activation="tanh", map="additive", scale="exp", slope=0.1, seed=1, dtype="float64")
    hr.NSF(2, coupling=True, bins=4, bound=2.0, slope=0.1, activation="elu")
    hr.transforms.MaskedAutoregressive(2, (8,), reads="latent", formula="to_latent", bins=4)
    hr.transforms.Coupling(2, [0], (8,), formula="to_latent", bins=4, context=1)
    hr.transforms.Elementwise(2, map="affine", scale="exp")
    hr.transforms.Planar(2, activation="relu", context=1)
    hr.PlanarFlow(2, 4, 1, nonlinearity="tanh", base="normal", seed=1)
    hr.WaveNet(layers=2, channels=4, map="affine", base=hr.Logistic(1))
    hr.DualAscentFlow(1.0, 20, kinks=2, map="kink", dtype="float64")
    hr.auto([[0.0]], 3.0, families=("maf",), bounds={"a": (0.0, None)}, effort="high")


def refused() -> None:
    hr.MAF(2, hiden=(8,))  # type: ignore[call-arg]
    hr.MAF(2, bins=4)  # type: ignore[call-arg]
    hr.IAF(2, slope="steep")  # type: ignore[arg-type]
    hr.RealNVP(2, activation=3)  # type: ignore[arg-type]
    hr.NSF(2, map="affine")  # type: ignore[call-arg]
    hr.transforms.MaskedAutoregressive(2, bin=4)  # type: ignore[call-arg]
    hr.transforms.Coupling(2, [0], reads="data")  # type: ignore[call-arg]
    hr.transforms.Coupling.from_dense([], [], features=2, passive=[0], reads="data")  # type: ignore[call-arg]
    hr.transforms.Elementwise(2, activation="relu")  # type: ignore[call-arg]
    hr.transforms.Planar(2, slope=0.1)  # type: ignore[call-arg]
    hr.RadialFlow(2, nonlinearity="tanh")  # type: ignore[call-arg]
    hr.WaveNet(layer=3)  # type: ignore[call-arg]
    hr.WaveNet(layers="a")  # type: ignore[arg-type]
    hr.DualAscentFlow(1.0, 20, "kink")  # type: ignore[call-arg]
    hr.DualAscentFlow(kinks="a")  # type: ignore[arg-type]
    hr.auto([[0.0]], family="maf")  # type: ignore[call-arg]
    hr.auto([[0.0]], families=3)  # type: ignore[arg-type]
