"""Density quality and time of whole fits, headrace beside zuko: ``python -m bench.quality --help``.

Fits run one at a time, each in another process, in alternating order of the libraries. Log-likelihoods are means over
held-out rows, in nats, of the data in units of the training part's standard deviations.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from bench import report
from bench.peers.client import ALLOWED, ROOT, alternating, environment, machine_facts, usable_cores
from bench.quality import datasets
from bench.quality.fits import Job, Training

FAMILIES = ("maf", "nsf")
HIDDEN = ((64, 64), (128, 128))
BATCHES = (256, 1024)
RATES = (1e-3, 5e-4)
GRACE = 120.0  # seconds beyond the budget before a process is killed

# Results of Uria, Murray, Larochelle 2013 (RNADE), by 10-fold cross-validation: a Gaussian, a mixture of factor
# analysers, a fully visible belief network, RNADE with mixtures of Gaussians and of Laplacians.
PUBLISHED: dict[str, dict[str, float]] = {
    "red": {"Gaussian": -13.18, "MFA": -10.19, "FVBN": -11.03, "RNADE-MoG": -9.36, "RNADE-MoL": -9.46},
    "white": {"Gaussian": -13.20, "MFA": -10.73, "FVBN": -10.52, "RNADE-MoG": -10.23, "RNADE-MoL": -10.38},
}


# ---- jobs --------------------------------------------------------------------------------------------------------


def magic_equal(options: argparse.Namespace) -> list[Job]:
    """Jobs with the same flow, optimiser, batches and number of epochs in both libraries."""
    epochs = 4 if options.quick else options.epochs
    training = Training(epochs, batch_size=512, learning_rate=1e-3, patience=epochs)
    shared = {"data": "magic", "budget": options.budget, "folder": str(options.data), "training": training}
    jobs = []
    for seed in range(options.seeds):
        for family in FAMILIES:
            libraries = alternating(("headrace", "zuko"), seed)
            jobs += [Job(library, family, seed=seed, **shared) for library in libraries]
    return jobs


def magic_defaults(options: argparse.Namespace) -> list[Job]:
    """Jobs of headrace with its defaults, and of zuko with settings that a user might try."""
    shared = {"data": "magic", "budget": options.budget, "folder": str(options.data)}
    settings = [
        (family, hidden, Training(epochs=100, batch_size=batch, learning_rate=rate, patience=10))
        for hidden in HIDDEN
        for batch in (BATCHES[:1] if options.few else BATCHES)
        for rate in (RATES[:1] if options.few else RATES)
        for family in FAMILIES
    ]
    if options.quick:
        settings = settings[:2]
    jobs = []
    for seed in range(options.seeds):
        ours = [Job("headrace", family, seed=seed, **shared) for family in FAMILIES]
        theirs = [
            Job("zuko", family, seed=seed, hidden=hidden, training=training, **shared)
            for family, hidden, training in settings
        ]
        middle = len(theirs) // 2  # fits of headrace run before, among and after those of zuko, by their seeds
        jobs += [[*ours, *theirs], [*theirs[:middle], *ours, *theirs[middle:]], [*theirs, *ours]][seed % 3]
    return jobs


def wine(options: argparse.Namespace) -> list[Job]:
    """Jobs of headrace with its defaults, on every fold, with and without noise."""
    shared = {"budget": options.budget, "folder": str(options.data)}
    return [
        Job("headrace", family, data=data, seed=fold, noise=noise, fold=(fold, 10), **shared)
        for data in PUBLISHED
        for fold in range(2 if options.quick else 10)
        for noise in (False, True)
        for family in FAMILIES
    ]


def run(job: Job, options: argparse.Namespace) -> dict:
    """The result of one fit; ``error`` is the reason if there is no result."""
    python, extra = options.peer_python, {}
    if job.library == "headrace":  # headrace inherits this interpreter and its import path
        python, extra = sys.executable, {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    process = subprocess.Popen(
        [python, "-m", "bench.quality.fits", str(options.threads)],
        cwd=ROOT,
        env=environment(options.threads, extra),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, sorted(os.sched_getaffinity(0))[: options.threads])
    try:
        out, messages = process.communicate(json.dumps(job.to_dict()), timeout=job.budget + GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"error": f"went on for {GRACE:g} s after its budget"}
    if process.returncode or not out:
        return {"error": (messages.strip().splitlines() or ["no message"])[-1]}
    result = json.loads(out)
    spare = (os.cpu_count() or 1) - options.threads
    return {**result, "disturbed": (result.get("others") or 0.0) > spare + ALLOWED}


# ---- the report ---------------------------------------------------------------------------------------------------


class Group:
    """The results of jobs that differ only in seed or fold; failed ones are left out."""

    def __init__(self, fits: Iterable[dict], chosen: Callable[[Job], bool]) -> None:
        pairs = [(Job.from_dict(fit["job"]), fit["result"]) for fit in fits]
        self.results = [result for job, result in pairs if chosen(job) and "error" not in result]

    def values(self, name: str) -> list[float]:
        """The values of this name, one for each fit."""
        return [result[name] for result in self.results]

    def mean(self, name: str) -> float:
        """The mean over the fits, or NaN without any fit."""
        return statistics.fmean(self.values(name)) if self.results else math.nan

    def median(self, name: str) -> float:
        """The median over the fits, or NaN without any fit."""
        return statistics.median(self.values(name)) if self.results else math.nan

    def nats(self, name: str = "log_likelihood", standard_error: bool = False) -> str:
        """The mean, and for two fits or more the standard deviation over the fits or the standard error of the mean."""
        values = self.values(name)
        if not values:
            return "-"
        if len(values) == 1:
            return f"{values[0]:.3f}"
        spread = float(np.std(values, ddof=1)) / (math.sqrt(len(values)) if standard_error else 1)
        return f"{self.mean(name):.3f} ± {spread:.3f}"

    def seconds(self) -> str:
        """The median time of a fit, with marks if a fit was disturbed or cut."""
        mark = ("!" if any(self.values("disturbed")) else "") + (" (cut)" if any(self.values("cut")) else "")
        return report.duration(self.median("seconds")) + mark if self.results else "-"


def libraries(fits: Sequence[dict]) -> list[str]:
    """A line for each library with its settings, from the first fit that reports settings."""
    facts: dict[str, dict] = {}
    for fit in fits:
        result = fit["result"]
        facts_of = result.get("facts", {"present": False, "reason": result.get("error")})
        known = facts.get(fit["job"]["library"])
        if known is None or not known["present"]:
            facts[fit["job"]["library"]] = facts_of
    return [report.library_line(library, known) for library, known in facts.items()]


def failures(fits: Sequence[dict]) -> list[str]:
    """A line for each failed fit."""
    return [
        f"- failed: {name(Job.from_dict(f['job']))}: {f['result']['error']}" for f in fits if "error" in f["result"]
    ]


def name(job: Job) -> str:
    """The name of a job, for example ``zuko nsf magic seed 0 [64,64] batch 256 rate 0.001``."""
    parts = [job.library, job.family, job.data + (" with noise" if job.noise else "")]
    parts.append(f"seed {job.seed}" if job.fold is None else f"fold {job.fold[0]}")
    return " ".join([*parts, setting(job)])


def setting(job: Job) -> str:
    """The sizes and the training of a job in a few words."""
    if job.training is None:
        return "defaults"
    hidden = ",".join(map(str, job.hidden))
    return f"[{hidden}] batch {job.training.batch_size} rate {job.training.learning_rate:g}"


def magic_equal_lines(results: dict) -> list[str]:
    """Lines with both libraries in one row, a row for each model."""
    fits, rows = results["fits"], []
    for family in FAMILIES:
        ours, theirs = (
            Group(fits, lambda job, library=library, family=family: (job.library, job.family) == (library, family))
            for library in ("headrace", "zuko")
        )
        ratio = theirs.median("seconds") / ours.median("seconds")
        difference = ours.mean("log_likelihood") - theirs.mean("log_likelihood")
        quality = [ours.nats(), theirs.nats(), report.number(difference, "+.3f")]
        rows.append([family.upper(), *quality, ours.seconds(), theirs.seconds(), report.number(ratio, ".2f")])
    job = Job.from_dict(fits[0]["job"])
    columns = ["model", "headrace, nats", "zuko, nats", "difference"]
    return [
        f"MAGIC, {job.transforms} transforms, {setting(job)}, {job.training.epochs} epochs, constant rate, the weights "
        "best in validation kept; mean ± standard deviation over the seeds, median seconds of a fit.",
        "",
        *report.table([*columns, "headrace, time", "zuko, time", "zuko / headrace"], rows),
        "",
        f"A full-covariance Gaussian has {results['gaussian']['magic']:.3f}.",
    ]


def magic_defaults_lines(results: dict) -> list[str]:
    """A row for each setting, and the best setting of zuko by validation beside headrace."""
    fits = results["fits"]
    groups: dict[tuple[str, str, str], Group] = {}
    for fit in fits:
        job = Job.from_dict(fit["job"])
        key = (job.library, job.family, setting(job))
        groups.setdefault(key, Group(fits, lambda job, key=key: (job.library, job.family, setting(job)) == key))
    rows = []
    for (library, family, words), group in sorted(groups.items()):
        quality = [group.nats(), group.nats("validation")]
        epochs = report.number(group.median("epochs"), ".0f")
        rows.append([library, family.upper(), words, *quality, group.seconds(), epochs])
    lines = [
        "MAGIC, early stopping; mean ± standard deviation over the seeds, median seconds and epochs of a fit. Headrace "
        "takes a share of the training rows for validation itself, so that validations are comparable within one "
        "library only.",
        "",
        *report.table(["library", "model", "setting", "held-out, nats", "validation, nats", "time", "epochs"], rows),
        "",
        f"A full-covariance Gaussian has {results['gaussian']['magic']:.3f}.",
    ]
    theirs = [(key, group) for key, group in groups.items() if key[0] == "zuko" and group.results]
    if theirs:
        (_, family, words), best = max(theirs, key=lambda pair: pair[1].mean("validation"))
        lines += ["", f"Best of zuko by validation: {family.upper()} {words}, {best.nats()}, {best.seconds()}."]
        for (library, family, _), group in groups.items():
            if library == "headrace" and group.results:
                difference = group.mean("log_likelihood") - best.mean("log_likelihood")
                ratio = best.median("seconds") / group.median("seconds")
                lines.append(
                    f"headrace {family.upper()} with its defaults: {difference:+.3f} nats, {ratio:.2f} times as fast."
                )
    return lines


def wine_lines(results: dict) -> list[str]:
    """A row for each data set, with and without noise, and the published values."""
    fits, rows = results["fits"], []
    for data in PUBLISHED:
        for noise in (False, True):
            groups = [
                Group(fits, lambda job, wanted=(data, noise, family): (job.data, job.noise, job.family) == wanted)
                for family in FAMILIES
            ]
            key = f"{data} with noise" if noise else data
            quality = [f"{results['gaussian'][key]:.3f}", *(group.nats(standard_error=True) for group in groups)]
            rows.append([key, *quality, *(group.seconds() for group in groups)])
    names = list(PUBLISHED["red"])
    published = [[data, *(f"{numbers[name]:.2f}" for name in names)] for data, numbers in PUBLISHED.items()]
    folds = len({fit["job"]["fold"][0] for fit in fits})
    return [
        f"Wine quality, 11 columns, {folds} of 10 folds, standardised by the training fold, headrace with its "
        "defaults; mean ± standard error over the folds, median seconds of a fit. With noise: uniform, of the size of "
        "each column's resolution; values repeat, and without it a flexible density can grow without bound on them.",
        "",
        *report.table(["wine", "Gaussian", "MAF", "NSF", "MAF, time", "NSF, time"], rows),
        "",
        "Published, without noise (Uria, Murray, Larochelle 2013):",
        "",
        *report.table(["wine", *names], published),
    ]


def gaussians(jobs: Sequence[Job]) -> dict[str, float]:
    """The log-likelihood of a Gaussian on the rows of the fits, by data set, as a mean over the parts."""
    values: dict[str, dict] = {}
    for job in jobs:
        values.setdefault(f"{job.data} with noise" if job.noise else job.data, {})[job.fold] = job
    return {
        key: statistics.fmean(datasets.gaussian(job.parts()) for job in by_fold.values())
        for key, by_fold in values.items()
    }


STUDIES: dict[str, tuple[Callable[[argparse.Namespace], list[Job]], Callable[[dict], list[str]]]] = {
    "magic_equal": (magic_equal, magic_equal_lines),
    "magic_defaults": (magic_defaults, magic_defaults_lines),
    "wine": (wine, wine_lines),
}


def markdown(results: dict) -> str:
    """The report as Markdown."""
    machine, fits = results["machine"], results["fits"]
    lines = [
        f"# Quality and time of fits: {results['what']}, {machine['threads']} threads",
        "",
        report.machine_line(machine, results["date"]),
        "",
        *libraries(fits),
        *failures(fits),
        "",
        *STUDIES[results["what"]][1](results),
        "",
        "Mean log-likelihood of held-out rows in units of the training part's standard deviations. !: something else "
        f"was busy during a fit; (cut): a budget of {results['options']['budget']:g} s ended a fit; -: unknown.",
        "",
    ]
    return "\n".join(lines)


def study(what: str, options: argparse.Namespace) -> bool:
    """Run one study, and write the report anew after every fit; return whether all fits gave a result."""
    jobs = STUDIES[what][0](options)
    if options.libraries:
        jobs = [job for job in jobs if job.library in options.libraries.split(",")]
    if not jobs:
        print(f"{what}: nothing to do for {options.libraries}", file=sys.stderr)
        return True
    path = options.output / report.stem(f"quality{'_quick' if options.quick else ''}_{what}", options.threads).name
    results: dict = {
        "what": what,
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": machine_facts(options.threads),
        "options": {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()},
        "gaussian": gaussians(jobs),
        "fits": [],
    }
    for i, job in enumerate(jobs):
        result = run(job, options)
        results["fits"].append({"job": job.to_dict(), "result": result})
        outcome = result.get("error") or f"{result['log_likelihood']:.3f} nats, {report.duration(result['seconds'])}"
        print(f"[{i + 1}/{len(jobs)}] {name(job)}: {outcome}", file=sys.stderr, flush=True)
        report.write(path, results, markdown(results))
    print(markdown(results))
    return not any("error" in fit["result"] for fit in results["fits"])


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--peer-python", default=sys.executable, metavar="PATH", help="interpreter that has zuko")
    add("--data", type=Path, default=datasets.FOLDER, metavar="DIR", help=f"the files (default: {datasets.FOLDER})")
    add("--what", default="", metavar="REGEX", help=f"a choice of {', '.join(STUDIES)} (default: all)")
    add("--libraries", default="", help="headrace or zuko (default: both)")
    add("--seeds", type=int, default=3, help="fits of each setting on MAGIC (default: 3)")
    add("--epochs", type=int, default=40, help="epochs of magic_equal (default: 40)")
    add("--budget", type=float, default=600.0, help="seconds of a fit, which then ends as it is (default: 600)")
    add("--threads", type=int, default=usable_cores(), help="threads of both libraries (default: all cores)")
    add("--few", action="store_true", help="4 of zuko's 16 settings: batches of 256, rate 1e-3")
    add("--quick", action="store_true", help="1 seed, 4 epochs, 2 of zuko's settings, 2 folds, 30 s a fit")
    add("--output", type=Path, default=ROOT / "bench" / "results", metavar="DIR", help="where the reports go")
    options = parser.parse_args(argv)
    options.data = options.data.resolve()
    if options.quick:
        options.seeds, options.budget = 1, 30.0
    if not options.data.is_dir():
        parser.error(f"no folder {options.data}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts that the command line names; return 1 if a fit failed."""
    options = arguments(argv)
    done = [study(what, options) for what in STUDIES if re.search(options.what, what)]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
