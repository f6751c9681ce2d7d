"""Settings of ready-made flows, tried with the defaults of `fit`: ``python -m bench.settings [--what REGEX] [--seeds
N]``.

Each table is in three parts: a flow is fitted to the first (of which `fit` holds out a tenth), settings are chosen by
the second, and the third, which no choice sees, shows the gain of the choice. Results are mean log-likelihoods in nats,
in units of the first part's standard deviations.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import headrace as hr
from bench.quality import datasets
from bench.quality.datasets import Parts

SETTINGS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "marginals by networks": {"fit": {"gaussianize": False}},
    "stages alone": {"fit": {"schedule": "constant"}},
    "linear links": {"link": "linear"},
    "random links": {"link": "random"},
    "residual": {"residual": True},
    "dropout 0.05": {"dropout": 0.05},
    "128 units": {"hidden": (128, 128)},
    "linear links, 128 units": {"link": "linear", "hidden": (128, 128)},
    "linear links, 128 units, dropout 0.05": {"link": "linear", "hidden": (128, 128), "dropout": 0.05},
    "8 transforms": {"transforms": 8},
    "silu": {"activation": "silu"},
    "slope 0.05": {"slope": 0.05},
    "high effort": {"fit": {"effort": "high"}},
    "high effort, residual": {"residual": True, "fit": {"effort": "high"}},
}


def tables(folder: Path) -> dict[str, Parts]:
    """Name -> rows to fit, to choose by and to judge by."""
    magic = datasets.load("magic", folder)
    found = {"1000 rows of MAGIC": datasets.split(magic)}
    parts = found["1000 rows of MAGIC"]
    found["1000 rows of MAGIC"] = Parts(parts.train[:1000], parts.validation, parts.test)
    for name in ("red", "white"):
        found[name] = datasets.split(datasets.with_noise(datasets.load(name, folder)))
    found["MAGIC"] = datasets.split(magic)
    return found


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", default="", metavar="REGEX", help="only settings whose name matches")
    parser.add_argument("--flows", default="MAF,NSF", help="names of flows")
    parser.add_argument("--tables", default="", metavar="REGEX", help="only tables whose name matches")
    parser.add_argument("--seeds", type=int, default=1, help="fits of each (default: 1)")
    parser.add_argument("--data", type=Path, default=datasets.FOLDER, help="folder with the files of bench.quality")
    options = parser.parse_args()
    print(f"headrace {hr.__version__}, {hr.get_num_threads()} threads")
    found, matched = tables(options.data), False
    for table, parts in found.items():
        if not re.search(options.tables, table, re.IGNORECASE):
            continue
        for family in options.flows.split(","):
            for name, settings in SETTINGS.items():
                if not re.search(options.what, name, re.IGNORECASE):
                    continue
                matched = True
                chosen, judged, cpu = [], [], time.process_time()
                made = {key: value for key, value in settings.items() if key != "fit"}
                for seed in range(options.seeds):
                    flow = getattr(hr, family)(parts.train.shape[1], seed=seed, **made)
                    flow.fit(parts.train, seed=seed, progress=False, **settings.get("fit", {}))
                    for values, rows in ((chosen, parts.validation), (judged, parts.test)):
                        values.append(float(flow.log_prob(rows).mean(dtype=np.float64)) + parts.offset)
                spread = f" ± {statistics.stdev(judged):.3f}" if len(judged) > 1 else ""
                seconds = (time.process_time() - cpu) / options.seeds
                print(
                    f"{table}, {family}, {name}: to choose by {statistics.mean(chosen):.3f}, to judge by "
                    f"{statistics.mean(judged):.3f}{spread}; {seconds:.1f} s of a core",
                    flush=True,
                )
    if not matched:
        parser.error(
            f"expected --tables and --what to match something, got {options.tables!r} and {options.what!r}; tables: "
            f"{', '.join(found)}; settings: {', '.join(SETTINGS)}"
        )


if __name__ == "__main__":
    main()
