"""`headrace report`: a density fitted to a table and judged in one command, and a Python script that does the same."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from pathlib import Path

from headrace._cli import fitting
from headrace._cli.commands import Density, _check_output, _load
from headrace._cli.diagnose import looked
from headrace._cli.screen import INTERRUPTED, OK, counted, duration, note, say, usage
from headrace._cli.writing import write_text
from headrace._tables.density import TableDensity
from headrace.diagnosis.page import page
from headrace.rows import _files as tables
from headrace.rows._files import OF_TEXT, suffix_of

READ = (*OF_TEXT, ".parquet")
SECONDS = 30.0  # the default time of the fit
_WRITTEN = {"page": ".html", "density": ".safetensors", "rows held out": ".held_out.csv", "script": ".py"}
_PYTHON = '''"""The density of {name}, and its page, as `headrace report` made them: pip install ".[sklearn,plot]"."""

import numpy as np
{pandas}import headrace as hr
from headrace.sklearn import FitSettings, FlowDensity

{reading}
rng = np.random.default_rng([{seed}, {apart}])
order = rng.permutation(len(x))
held_out, training = np.split(order, [round({share} * len(x))])

density = FlowDensity(missing="drop", random_state={seed}, fit=FitSettings(time_budget={seconds:g}))
density.fit(x{at}[training]{weights}{given})
density.as_table().save({density!r})

diagnosis = hr.diagnose(density, x{at}[held_out]{look}, training={training}{names}, seed={seed})
print(diagnosis)
with open({page!r}, "w", encoding="utf-8") as file:
    file.write(diagnosis.to_html({name!r}))
'''


def report(arguments: Namespace) -> int:
    """Fit a density to a table, judge it by rows set apart, and write the density, a page, these rows and a script."""
    if len(arguments.data) > 1 or suffix_of(arguments.data[0]) not in READ:
        usage(arguments, f"argument DATA: expected one table ({', '.join(READ)}), got {' '.join(arguments.data)}")
    began = time.perf_counter()
    written = {name: str(Path(arguments.output).with_suffix(end)) for name, end in _WRITTEN.items()}
    inputs = tables.files_of(arguments.data, name="DATA")
    for path in written.values():
        _check_output(Namespace(output=path), *inputs)
    arguments.categories = "auto"  # the default of FlowDensity
    with fitting._nothing_saved(written["density"]):
        flow, notes, apart = _fit(arguments, written)
    fitting._save(written["density"], flow, notes)
    apart.write(written["rows held out"])
    density = _load(written["density"])
    training = None if apart.rest is None else (apart.rest.x, apart.rest.context)
    diagnosis = looked(arguments, density, apart.held.arrays(), training, density.columns.names)
    script = _script(arguments, density, apart, written)
    note(arguments, f"drawing {written['page']}")
    write_text(written["page"], page(diagnosis, Path(arguments.data[0]).name, script))
    write_text(written["script"], script)
    made = f"a density of {counted(density.flow.features, 'column')}, judged by {counted(len(apart.held), 'row')}"
    lines = [f"{made} held out, in {duration(time.perf_counter() - began)}"]
    lines += [f"{name}: {path}" for name, path in written.items()]
    say(arguments, {**diagnosis.summary(), "files": written}, [*diagnosis.blocks(), "", *lines])
    return INTERRUPTED if diagnosis.interrupted else OK


def _fit(arguments: Namespace, written: dict[str, str]) -> tuple[Density, dict[str, str], fitting.Apart]:
    """A flow fitted as by `headrace fit` with its defaults, the notes of the flow's file, and the rows set apart."""
    shared = {**vars(arguments), "output": written["density"], "held_out": written["rows held out"]}
    fit = arguments.parsed(["fit", *arguments.data, "--output", written["density"]])
    fitted = fitting._fitted(Namespace(**{**vars(fit), **shared, "missing": "drop", "run": fit.run}))
    assert fitted.apart is not None
    return fitted.flow, fitted.notes, fitted.apart


def _script(arguments: Namespace, density: TableDensity, apart: fitting.Apart, written: dict[str, str]) -> str:
    """The text of a Python script that makes the same density and page as this command."""
    path, (features, context, weights) = arguments.data[0], apart.columns
    kind = "parquet" if suffix_of(path) == ".parquet" else "csv"
    has_kinds = any(column.kind != "float" for column in density.columns.table.columns)
    if has_kinds:  # because only columns of data frames have kinds
        how = "" if arguments.delimiter is None else f", sep={arguments.delimiter!r}"
        how = how if kind == "csv" else ", dtype_backend='numpy_nullable'"
        reading = f"rows = pandas.read_{kind}({path!r}{how})\nx = rows[{features!r}]"
        if kind == "csv":
            reading += '\nx = x.astype(dict.fromkeys(x.select_dtypes("integer"), float))'
        at, conditions, shares = ".iloc", f"rows[{context!r}].to_numpy()", f"rows[{weights!r}].to_numpy()[:, 0]"
    else:
        keywords = {"context": context, "weights": weights[0] if weights else None, "delimiter": arguments.delimiter}
        keywords |= {"header": arguments.header if arguments.header != "auto" else None}
        how = "".join(f", {name}={value!r}" for name, value in keywords.items() if value)
        reading = f"rows = hr.rows.{kind}({path!r}, {features!r}{how}).whole()\nx = rows.x"
        at, conditions, shares = "", "rows.context", "rows.weights"
    both = {part: f"{conditions}[{part}]" for part in ("training", "held_out")}
    named = f", names={features!r}" if isinstance(features[0], str) else ""
    imports = "import pandas\n\n" if has_kinds else "\n"
    values = {"name": os.path.basename(path), "pandas": imports, "reading": reading}
    values |= {"seed": arguments.seed, "seconds": arguments.time_budget, "apart": fitting.APART, **written}
    values |= {"share": fitting.VALIDATION, "at": at, "names": named}
    values["look"] = (f", {both['held_out']}" if context else "") + (f", weights={shares}[held_out]" if weights else "")
    values["weights"] = f", sample_weight={shares}[training]" if weights else ""
    values["given"] = f", context={both['training']}" if context else ""
    values["training"] = f"(x{at}[training], {both['training']})" if context else f"x{at}[training]"
    return _PYTHON.format(**values)
