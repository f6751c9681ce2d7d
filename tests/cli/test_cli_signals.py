"""The command line fits, scores, samples and continues signals in WAV files."""

import inspect
import json
import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cases
import headrace as hr
from cli_cases import RATE, check_error, small_flow, table, write, write_wave
from headrace import files
from headrace._base.keywords import meanings
from headrace._cli import cli
from headrace._cli import flow_options as offered
from headrace.rows import _waves as waves

pytestmark = pytest.mark.programs

SMALL = ("--set", "layers=3", "--set", "channels=6", "--epochs", 2, "--quiet")


def values(steps, channels=1, key="signal"):
    """Return an autoregression, rounded to 16-bit integers."""
    noise = cases.rng(key).standard_normal((steps, channels)) * 200.0
    x = np.zeros((steps, channels))
    for t in range(2, steps):
        x[t] = 1.6 * x[t - 1] - 0.8 * x[t - 2] + noise[t]
    return np.round(x).astype("<i2")


def read_wave(path):
    """Return the rate and the integers of a file whose header has 44 bytes, without the reader of headrace."""
    with open(path, "rb") as file:
        content = file.read()
    assert content[:4] + content[8:16] + content[36:40] == b"RIFFWAVEfmt data"
    code, channels, rate, _, _, bits = np.frombuffer(content[20:36], "<u2,<u2,<u4,<u4,<u2,<u2")[0].tolist()
    assert (code, bits) == (1, 16)
    sizes = np.frombuffer(content[4:8] + content[40:44], "<u4").tolist()
    assert sizes == [len(content) - 8, len(content) - 44]
    return rate, np.frombuffer(content[44:], "<i2").reshape(-1, channels)


def signal_flow(path="f.safetensors", channels=1, rate=RATE, note=True, **options):
    """Save a small flow with the note that `fit` writes."""
    options = {"layers": 3, "channels": 6, "standardize": (0.0, 400.0), "seed": 3} | options
    flow = hr.WaveNet(channels, **options)
    files.save(flow, path, {"signal": json.dumps({"rate": rate, "bits": 16, "step": 1})} if note else None)
    return flow


# ---- fit -------------------------------------------------------------------------------------------------------------


def test_fit_is_the_fit_of_python(folder, run, result):
    x = [values(n, key=f"{n}") for n in (900, 700, 500)]
    paths = [write_wave(f"{i}.wav", one) for i, one in enumerate(x)]
    report = result("fit", *paths, "-o", "f.safetensors", "--seed", 5, "--validation", 0.2, *SMALL)
    flow = hr.WaveNet(layers=3, channels=6, seed=5)
    history = flow.fit(x, quantised=1, validation=0.2, epochs=2, seed=5, progress=False)
    loaded = hr.load("f.safetensors")
    assert type(loaded) is hr.WaveNet
    assert_array_equal(loaded.parameters, flow.parameters)
    cases.assert_same_bits(loaded.log_prob(x, quantised=1), flow.log_prob(x, quantised=1))
    assert report["log_likelihood"] == -history.best_loss
    assert report["bits"] == pytest.approx(history.best_loss / np.log(2.0))
    wanted = {"signals": 3, "steps": 2100, "rate": RATE, "channels": 1, "field": flow.field, "epochs": 2, "seed": 5}
    assert {name: report[name] for name in wanted} == wanted
    assert report["judged_by"] == "held-out sequences"
    assert json.loads(files.read_notes("f.safetensors")["signal"]) == {"rate": RATE, "bits": 16, "step": 1}

    code, out, err = run("fit", paths[0], "-o", "g.safetensors", *SMALL)  # the end of a single signal is held out
    assert (code, err) == (0, "")
    assert "1 signal, 900 steps at 8,000 Hz" in out
    assert "mean log-likelihood of held-out steps, nats a step: WaveNet -" in out
    assert "saved to g.safetensors" in out


def test_a_fit_of_signals_prints_its_longest_time_first(folder, run):
    path = write_wave("a.wav", values(3000))
    loud = [one for one in SMALL if one != "--quiet"]
    code, _, err = run("fit", path, "-o", "f.safetensors", *loud)
    assert code == 0
    assert re.search(r"at most 2 epochs of \d+ steps, together [\d.]+ (ms|s) at this speed, fewer", err)
    code, _, err = run("fit", path, "-o", "f.safetensors", *loud, "--time-budget", 5)
    assert (code, "at most" in err) == (0, False)
    first = hr.load("f.safetensors")
    assert run("fit", path, "-o", "g.safetensors", *SMALL)[0] == 0
    assert_array_equal(first.parameters, hr.load("g.safetensors").parameters)


def test_a_signal_of_one_step_beside_a_long_one_costs_nothing(folder, result):
    write_wave("a.wav", values(4000))
    write_wave("one.wav", values(1))
    reached = []
    for paths in (("a.wav",), ("a.wav", "one.wav"), ("one.wav", "a.wav")):
        report = result("fit", *paths, "-o", "f.safetensors", *SMALL)
        assert report["judged_by"] == "held-out steps"
        reached.append(report["log_likelihood"])
    assert max(reached) - min(reached) < 0.1


def test_a_folder_and_a_pattern_are_their_files(folder, result):
    (folder / "voice").mkdir()
    for name in ("b", "a"):
        write_wave(f"voice/{name}.wav", values(300, key=name))
    write("voice/notes.md", "spoken")
    for given in ("voice", "voice/*.wav"):
        result("fit", given, "-o", "f.safetensors", *SMALL)
        report = result("score", "f.safetensors", given)
        assert [one["file"] for one in report["signals"]] == ["voice/a.wav", "voice/b.wav"]


def test_every_argument_of_a_network_is_an_option(folder, result):
    write_wave("a.wav", values(400))
    given = {
        "layers": 2, "channels": 5, "kernel": 3, "dilations": (1, 3), "skip": 4, "prediction": 0, "companded": False,
        "level": False, "adaptive": False, "matmul": "exact", "hop": 1,
    }  # fmt: skip
    kind = offered.SIGNALS["WaveNet"]
    assert set(kind.settings) == set(given) <= set(inspect.signature(hr.WaveNet).parameters)
    assert set(given) <= set(meanings(hr.WaveNet.__doc__))
    options = []
    for name, value in given.items():
        options += ["--set", f"{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"]
    result("fit", "a.wav", "-o", "f.safetensors", "--flow", "WaveNet", "--epochs", 0, "--dtype", "float64", *options)
    flow, like = hr.load("f.safetensors"), hr.WaveNet(**given, dtype="float64")
    assert flow.dtype == np.float64
    assert repr(flow.transforms[0]) == repr(like.transforms[0])
    assert len(flow.transforms) == len(like.transforms) == 2  # `prediction` is 0


def test_products_and_the_schedule_are_those_of_python(folder, result):
    write_wave("a.wav", values(800))
    chosen = {"bf16": "cosine", "exact": "constant"}
    for matmul, schedule in chosen.items():
        own = ["--set", f"matmul={matmul}", "--set", f"schedule={schedule}"]
        result("fit", "a.wav", "-o", f"{matmul}.safetensors", *SMALL, *own)
    x, flows = [values(800)], {matmul: hr.load(f"{matmul}.safetensors") for matmul in chosen}
    for matmul, schedule in chosen.items():
        like = hr.WaveNet(layers=3, channels=6, matmul=matmul)
        like.fit(x, quantised=1, epochs=2, progress=False, schedule=schedule)
        assert flows[matmul].matmul == matmul
        assert_array_equal(flows[matmul].parameters, like.parameters)
    assert not np.array_equal(flows["bf16"].parameters, flows["exact"].parameters)


def test_bounds_are_those_of_python(folder, run, result):
    x = np.abs(values(600, 2))
    write_wave("a.wav", x)
    result("fit", "a.wav", "-o", "f.safetensors", "--bounds", "0=-0.5:,1=-0.5:40000", *SMALL)
    flow = hr.WaveNet(2, layers=3, channels=6, bounds=[(-0.5, None), (-0.5, 40000)])
    flow.fit([x], quantised=1, epochs=2, progress=False)
    loaded = hr.load("f.safetensors")
    assert loaded.transforms[-1].bounds == ((-0.5, None), (-0.5, 40000.0))
    assert_array_equal(loaded.parameters, flow.parameters)
    result("fit", "a.wav", "-o", "g.safetensors", "--bounds", "1=-1:", *SMALL)
    assert hr.load("g.safetensors").transforms[-1].bounds == (None, (-1.0, None))
    for bounds, words in (
        ("2=0:", ["--bounds: expected a column of a.wav, got '2'; the file has 2 columns"]),
        ("0=0:,0=1:", ["--bounds", "channel 0 twice"]),
        ("0=0:", ["expected values between their bounds", "for counts bounds are half a step out"]),
    ):
        check_error(*run("fit", "a.wav", "-o", "h.safetensors", "--bounds", bounds, *SMALL), words)


def test_a_checkpoint_is_resumed(folder, result, monkeypatch):
    write_wave("a.wav", values(1500))
    result("fit", "a.wav", "-o", "whole.safetensors", *SMALL)
    own, epochs = hr.Adam.step, []

    def step(self, *given):
        epochs.append(1)
        if len(epochs) == 5:
            raise KeyboardInterrupt
        return own(self, *given)

    monkeypatch.setattr(hr.Adam, "step", step)
    command = ["fit", "a.wav", "-o", "f.safetensors", "--checkpoint", "state", *map(str, SMALL)]
    assert cli.main(command) == 130
    assert (folder / "state").exists()
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert cli.main(command) == 0
    assert_array_equal(hr.load("f.safetensors").parameters, hr.load("whole.safetensors").parameters)


# ---- contexts and covariates -----------------------------------------------------------------------------------------


@pytest.fixture
def beside(folder):
    """Write two signals, a table of their contexts, and a table of frames for each signal."""
    steps, x = {"b": 700, "a": 900}, {}
    for name in ("voice", "frames"):
        (folder / name).mkdir()
    for name, n in steps.items():
        x[name] = values(n, key=name)
        write_wave(f"voice/{name}.wav", x[name])
        frames = cases.rng(f"frames {name}").standard_normal((n // 10 + 1, 2))
        np.savetxt(f"frames/{name}.csv", frames, header="pitch,gain", comments="", delimiter=",")
    write("speakers.csv", "age,file,kind\n31,b.wav,0\n40,a,1\n7,other.wav,1\n")
    given = {name: np.loadtxt(f"frames/{name}.csv", delimiter=",", skiprows=1) for name in steps}
    return [x["a"], x["b"]], np.array([[40.0, 1.0], [31.0, 0.0]]), [given["a"], given["b"]]


BESIDE = ("--context", "speakers.csv", "--covariates", "frames")


def test_contexts_and_covariates_are_those_of_python(beside, run, result):
    x, context, frames = beside
    result("fit", "voice", "-o", "f.safetensors", "--set", "hop=10", *SMALL, *BESIDE)
    flow = hr.WaveNet(layers=3, channels=6, context=2, covariates=2, hop=10)
    flow.fit(x, context, frames, quantised=1, epochs=2, progress=False)
    assert_array_equal(hr.load("f.safetensors").parameters, flow.parameters)
    wanted = flow.log_prob(x, context, frames, quantised=1)
    report = result("score", "f.safetensors", "voice", *BESIDE)
    np.testing.assert_allclose([one["log_prob"] for one in report["signals"]], wanted, rtol=1e-6)
    assert run("diagnose", "f.safetensors", "voice", *BESIDE)[0] == 0
    own = ("--context", 40, 1, "--covariates", "frames/a.csv")
    result("sample", "f.safetensors", "--steps", 60, "--seed", 3, "-o", "s.wav", *own)
    drawn = flow.sample(1, 60, context=context[:1], covariates=frames[0], seed=3)
    assert_array_equal(read_wave("s.wav")[1], waves.rounded(drawn[0])[0])


def test_columns_are_found_by_their_names(beside, result):
    _, _, frames = beside
    result("fit", "voice", "-o", "f.safetensors", "--set", "hop=10", *SMALL, *BESIDE)
    before = result("score", "f.safetensors", "voice", *BESIDE)
    write("speakers.csv", "kind,age,file\n1,40,voice/a.wav\n0,31,b\n")
    for name, own in zip("ab", frames, strict=True):
        moved = np.column_stack([own[:, 1], own[:, 0] * 0.0, own[:, 0]])
        np.savetxt(f"frames/{name}.csv", moved, header="gain,zero,pitch", comments="", delimiter=",")
    assert result("score", "f.safetensors", "voice", *BESIDE) == before


def test_scores_of_other_covariates_do_not_go_on(beside, run, result):
    result("fit", "voice", "-o", "f.safetensors", "--set", "hop=10", *SMALL, *BESIDE)
    command = ["score", "f.safetensors", "voice", "--steps", "-o", "scores/"]
    result(*command, *BESIDE)
    result(*command, *BESIDE)
    write("others.csv", "file,age,kind\na,1,0\nb,2,0\n")
    check_error(*run(*command, *BESIDE[2:], "--context", "others.csv"), ["--context", "another folder"])


WRONG_BESIDE = {
    "no row": ("speakers.csv", "age,file\n31,b.wav\n", ["--context: expected one row of voice/a.wav", "got 0"]),
    "two rows": ("speakers.csv", "age,file\n3,b\n4,a\n5,a.wav\n", ["one row of voice/a.wav", "got 2"]),
    "no names": ("speakers.csv", "31,2\n1,2\n", ["--context: expected a column of speakers.csv, got 'file'"]),
    "a word": ("speakers.csv", "age,file\nold,b\n4,a\n", ["speakers.csv: line 2", "expected a number, got 'old'"]),
    "a missing value": ("frames/a.csv", "pitch,gain\n1,nan\n", ["frames/a.csv", "NaN"]),
    "another column": ("frames/b.csv", "pitch,loud\n1,2\n", ["expected the columns of frames/a.csv in frames/b.csv"]),
    "few frames": ("frames/b.csv", "pitch,gain\n1,2\n3,4\n", ["expected at least 70 frames", "of sequence 1", "got 2"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_BESIDE)
def test_wrong_tables_beside_signals(beside, run, name):
    path, text, patterns = WRONG_BESIDE[name]
    write(path, text)
    check_error(*run("fit", "voice", "-o", "f.safetensors", "--set", "hop=10", *SMALL, *BESIDE), patterns)


def test_tables_beside_signals_that_are_not_there(beside, run, result):
    result("fit", "voice", "-o", "f.safetensors", "--set", "hop=10", *SMALL, *BESIDE)
    for given, pattern in (
        (BESIDE[:2], "--covariates: expected 2 columns for f.safetensors, got none"),
        (BESIDE[2:], "--context: expected 2 columns for f.safetensors, got none"),
        ((*BESIDE[:3], "frames/a.csv"), "--covariates: expected a folder, because there are 2 signals"),
        ((*BESIDE[:3], "voice"), "--covariates: expected a table of voice/a.wav in voice, as a.npy, got none"),
    ):
        check_error(*run("score", "f.safetensors", "voice", *given), [pattern])
    few = ["sample", "f.safetensors", "--steps", 9000, "-o", "s.wav", "--context", 1, 1, *BESIDE[2:3], "frames/a.csv"]
    check_error(*run(*few), ["expected at least 900 frames for 9000 steps", "got 91"])


# ---- score -----------------------------------------------------------------------------------------------------------


def test_scores_are_log_probabilities_of_integers(folder, run, result):
    flow = signal_flow()
    x = [values(600, key="one"), values(450, key="two")]
    paths = [write_wave(f"{i}.wav", one) for i, one in enumerate(x)]
    steps = [flow.log_prob_steps(one, quantised=1) for one in x]
    totals = [one.sum(dtype="f8") for one in steps]

    code, out, err = run("score", "f.safetensors", *paths)
    assert code == 0
    assert [float(line) for line in out.split()] == totals
    assert "2 signals, 1,050 steps: mean log density -" in err
    report = result("score", "f.safetensors", *paths, "-o", "s.csv")
    assert (folder / "s.csv").read_text().split() == ["log_prob", *(f"{one:.17g}" for one in totals)]
    assert [one["log_prob"] for one in report["signals"]] == totals
    assert [one["steps"] for one in report["signals"]] == [600, 450]
    assert report["log_likelihood"] == pytest.approx(sum(totals) / 1050, rel=1e-12)
    assert report["bits"] == pytest.approx(-sum(totals) / 1050 / np.log(2.0), rel=1e-12)

    assert result("score", "f.safetensors", paths[0], "--steps", "-o", "s.npy")["steps"] == 600
    cases.assert_same_bits(np.load("s.npy"), steps[0])
    code, out, _ = run("score", "f.safetensors", paths[1], "--steps", "--quiet")
    assert code == 0
    cases.assert_same_bits(np.array(out.split(), np.float32), steps[1])


def test_steps_of_many_signals_in_a_folder_are_resumed(folder, run, result, monkeypatch):
    flow = signal_flow()
    paths = [write_wave(f"{name}.wav", values(200, key=name)) for name in "abc"]
    first = result("score", "f.safetensors", *paths, "--steps", "-o", "scores/")
    for path in paths:
        x = read_wave(path)[1]
        found = np.loadtxt(f"scores/{path}.csv", skiprows=1, dtype=np.float32)
        cases.assert_same_bits(found, flow.log_prob_steps(x, quantised=1))
    (folder / "scores" / "b.wav.csv").unlink()
    done, own = [], hr.WaveNet.log_prob_steps
    monkeypatch.setattr(hr.WaveNet, "log_prob_steps", lambda *given, **rest: done.append(1) or own(*given, **rest))
    again = result("score", "f.safetensors", *paths, "--steps", "-o", "scores/")
    assert len(done) == 1
    assert again == first
    signal_flow(seed=4)
    check_error(
        *run("score", "f.safetensors", *paths, "--steps", "-o", "scores/"), ["scores of the same flow", "scores"]
    )


# ---- diagnose --------------------------------------------------------------------------------------------------------


@pytest.mark.costly
def test_a_diagnosis_is_that_of_python(folder, run, result):
    """The seed determines the noise of integers within their cells; without --output no file is written."""
    flow = signal_flow()
    x = [values(700, key="one"), values(500, key="two")]
    paths = [write_wave(f"{i}.wav", one) for i, one in enumerate(x)]
    rng = np.random.default_rng(4)
    want = hr.diagnose_sequences(flow, [one + (rng.random(one.shape) - 0.5) for one in x], seed=4)
    report = result("diagnose", "f.safetensors", *paths, "--seed", 4)
    assert report["tests"] == want.summary()["tests"]
    assert (report["nats"], report["error"], report["p_value"]) == (want.nats, want.error, want.p_value)
    assert (report["steps"], report["signals"], report["rate"], report["file"]) == (1200, paths, RATE, None)
    assert report["bits"] == pytest.approx(-want.nats / np.log(2.0))
    assert report["p_value"] < 1e-6  # the flow was not fitted to the signal
    code, out, _ = run("diagnose", "f.safetensors", *paths, "--seed", 4)
    assert (code, out.split()) == (0, str(want).split())  # the output has wrapped lines
    assert "\nWrong: at least" in out
    other = result("diagnose", "f.safetensors", *paths, "--seed", 5)
    assert other["nats"] != report["nats"]


@pytest.mark.costly
def test_a_diagnosis_of_channels_and_its_picture(folder, run, monkeypatch):
    pytest.importorskip("matplotlib")
    signal_flow(channels=2)
    (folder / "held").mkdir()
    write_wave("held/a.wav", values(400, 2))
    for name, begin in (("d.png", b"\x89PNG"), ("d.pdf", b"%PDF"), ("d.svg", b"<?xml")):
        code, out, err = run("diagnose", "f.safetensors", "held", "-o", name)
        assert code == 0, err
        assert out.endswith(f"\nsaved to {name}\n")
        assert (folder / name).read_bytes().startswith(begin)
    monkeypatch.setattr("headrace._cli.diagnose.can_draw", lambda: False)
    check_error(*run("diagnose", "f.safetensors", "held", "-o", "e.png"), ["--output: pictures need matplotlib"])
    assert not (folder / "e.png").exists()


# ---- sample ----------------------------------------------------------------------------------------------------------


def test_samples_are_those_of_python(folder, run, result):
    flow = signal_flow()
    report = result("sample", "f.safetensors", "--steps", 5000, "--seed", 7, "-o", "s.wav")
    rate, x = read_wave("s.wav")
    assert rate == RATE
    drawn = flow.sample(1, steps=5000, seed=7)[0]
    assert_array_equal(x, np.clip(np.rint(drawn), -32768, 32767))
    clipped = np.count_nonzero((np.rint(drawn) < -32768) | (np.rint(drawn) > 32767))
    assert report["clipped"] == clipped
    assert (report["steps"], report["steps_before"], report["seconds"], report["seed"]) == (5000, 0, 0.625, 7)
    result("sample", "f.safetensors", "--seconds", 0.025, "--seed", 7, "-o", "t.wav")
    assert_array_equal(read_wave("t.wav")[1], x[:200])
    code, out, _ = run("sample", "f.safetensors", "--steps", 10, "-o", "t.wav")
    assert code == 0
    assert "10 steps at 8,000 Hz, seed " in out


def test_values_beyond_16_bits_are_clipped_and_counted(folder, run, result):
    flow = signal_flow(standardize=(0.0, 30000.0), prediction=0)
    report = result("sample", "f.safetensors", "--steps", 400, "--seed", 7, "-o", "s.wav")
    x, drawn = read_wave("s.wav")[1], np.rint(flow.sample(1, steps=400, seed=7)[0])
    beyond = np.count_nonzero(np.abs(drawn + 0.5) > 32768)
    assert 0 < report["clipped"] == beyond < 400
    assert_array_equal(x, np.clip(drawn, -32768, 32767))
    out = run("sample", "f.safetensors", "--steps", 400, "--seed", 7, "-o", "s.wav")[1]
    assert f"clipped, because they lay beyond 16 bits: {beyond} of 400 values" in out


def test_a_signal_is_continued(folder, run, result):
    flow, x = signal_flow(), values(300)
    write_wave("a.wav", x)
    report = result("sample", "f.safetensors", "--steps", 50, "--continue", "a.wav", "--seed", 2, "-o", "s.wav")
    assert (report["steps"], report["steps_before"]) == (50, 300)
    found = read_wave("s.wav")[1]
    assert_array_equal(found[:300], x)
    drawn = flow.given(x.astype("f8")).sample((), steps=50, seed=2)
    assert_array_equal(found[300:], np.rint(drawn))
    out = run("sample", "f.safetensors", "--steps", 50, "--continue", "a.wav", "--seed", 2, "-o", "s.wav")[1]
    assert "50 steps after the 300 of a.wav at 8,000 Hz" in out


def test_two_channels(folder, result):
    x = values(500, 2)
    write_wave("a.wav", x, rate=44100)
    report = result("fit", "a.wav", "-o", "f.safetensors", *SMALL)
    assert (report["channels"], report["rate"]) == (2, 44100)
    flow = hr.load("f.safetensors")
    report = result("score", "f.safetensors", "a.wav")  # densities, because cells of two channels have no closed form
    assert report["signals"][0]["log_prob"] == pytest.approx(float(flow.log_prob(x.astype("f8"))), rel=1e-6)
    assert report["bits"] == pytest.approx(-report["log_likelihood"] / np.log(2.0) / 2)
    result("sample", "f.safetensors", "--steps", 30, "--seed", 1, "-o", "s.wav")
    rate, drawn = read_wave("s.wav")
    assert rate == 44100
    assert_array_equal(drawn, np.clip(np.rint(flow.sample(1, steps=30, seed=1)[0]), -32768, 32767))


# ---- info ------------------------------------------------------------------------------------------------------------


def test_info_of_a_flow(folder, run, result):
    flow = signal_flow(channels=1, rate=16000)
    facts = result("info", "f.safetensors")
    wanted = {"kind": "WaveNet", "rate": 16000, "channels": 1, "bits": 16, "field": flow.field, "dtype": "float32"}
    assert {name: facts[name] for name in wanted} == wanted
    assert facts["parameters"] == flow.n_parameters
    out = run("info", "f.safetensors")[1]
    assert "16,000 Hz, 16 bits, channels: 1" in out
    assert f"{flow.field} steps" in out
    small = small_flow("t.safetensors", context=1)
    facts = result("info", "t.safetensors")
    assert (facts["kind"], facts["features"], facts["context"]) == ("MAF", 3, 1)
    assert facts["parameters"] == small.n_parameters
    assert "rate" not in facts
    assert run("info", "t.safetensors")[0] == 0
    check_error(*run("info", "none.safetensors"), ["FLOW: expected a file", "none.safetensors"])


# ---- errors ----------------------------------------------------------------------------------------------------------


def cut(path):
    with open(write_wave(path, values(100)), "r+b") as file:
        file.truncate(100)


def coded(path, code):
    """Write a file whose header has another code for its format."""
    with open(write_wave(path, values(100)), "r+b") as file:
        file.seek(20)
        file.write(code.to_bytes(2, "little"))


WRONG_WAVES = {
    "8 bits": (lambda: write_wave("x.wav", np.zeros((9, 1), "u1"), width=1), ["got samples of 8 bits; ffmpeg -i"]),
    "24 bits": (lambda: write_wave("x.wav", np.zeros((9, 3), "u1"), width=3), ["x.wav: expected", "24 bits"]),
    "floats": (lambda: coded("x.wav", 3), ["x.wav: expected a WAV file of 16-bit PCM, got floats"]),
    "compressed": (lambda: coded("x.wav", 7), ["got µ-law", "ffmpeg -i x.wav -c:a pcm_s16le new.wav"]),
    "an unknown format": (lambda: coded("x.wav", 99), ["got format 99"]),
    "cut off": (lambda: cut("x.wav"), ["x.wav: expected 100 steps, as its header has, got 28"]),
    "no bytes": (lambda: write("x.wav", b""), ["x.wav: expected", "got a file that is cut off"]),
    "no wave": (lambda: write("x.wav", b"hello " * 20), ["x.wav: expected", "RIFF"]),
    "no steps": (lambda: write_wave("x.wav", values(0)), ["x.wav: expected at least one step"]),
    "another rate": (lambda: write_wave("x.wav", values(9), 16000), ["x.wav: expected 8000 Hz", "16000", "-ar 8000"]),
    "two channels": (lambda: write_wave("x.wav", values(9, 2)), ["x.wav: expected 1 channel", "got 2", "-ac 1"]),
    "no file": (lambda: None, ["x.wav: No such file"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_WAVES)
def test_wrong_files_are_refused_by_name(folder, run, name):
    make, patterns = WRONG_WAVES[name]
    make()
    write_wave("a.wav", values(200))
    signal_flow()
    check_error(*run("fit", "a.wav", "x.wav", "-o", "g.safetensors", "--quiet"), patterns)
    patterns = [one for one in patterns if "expected 8000" not in one]
    check_error(*run("score", "f.safetensors", "x.wav", "--quiet"), patterns)
    check_error(*run("sample", "f.safetensors", "--steps", 9, "--continue", "x.wav", "-o", "s.wav"), patterns)
    assert not (folder / "g.safetensors").exists()
    assert not (folder / "s.wav").exists()


WRONG = {
    "signals and tables": (1, ["fit", "a.wav", "t.csv", "-o", "g"], ["expected signals (.wav) or tables", "a.wav"]),
    "no signals": (1, ["fit", "none/*.wav", "-o", "g"], ["expected some .wav files, got none by none/*.wav"]),
    "a page of signals": (2, ["diagnose", "f.safetensors", "a.wav", "-o", "d.html"], ["--output: expected a picture"]),
    "weights to diagnose": (2, ["diagnose", "f.safetensors", "a.wav", "--weights", "0"], ["--weights: signals do not"]),
    "signals to remember": (
        2,
        ["diagnose", "f.safetensors", "a.wav", "--training", "t.csv"],
        ["--training: signals do not take it"],
    ),
    "a table to diagnose": (1, ["diagnose", "f.safetensors", "t.csv"], ["rows of a table, got a WaveNet", ".wav"]),
    "a signal for rows": (1, ["diagnose", "r.safetensors", "a.wav"], ["expected a flow of signals, got a MAF"]),
    "two tables to diagnose": (2, ["diagnose", "r.safetensors", "t.csv", "t.csv"], ["DATA: expected one table"]),
    "columns": (2, ["fit", "a.wav", "-o", "g", "--columns", "0"], ["argument --columns: signals do not take it"]),
    "weights": (2, ["fit", "a.wav", "-o", "g", "--weights", "0"], ["argument --weights: signals do not"]),
    "missing": (2, ["fit", "a.wav", "-o", "g", "--missing", "drop"], ["argument --missing: signals do not"]),
    "auto": (2, ["fit", "a.wav", "-o", "g", "--auto"], ["argument --auto: signals do not take it"]),
    "an ensemble": (2, ["fit", "a.wav", "-o", "g", "--ensemble", "2"], ["argument --ensemble: signals do not"]),
    "members": (2, ["fit", "a.wav", "-o", "g", "--keep", "m"], ["argument --keep: signals do not take it"]),
    "a flow of rows": (2, ["fit", "a.wav", "-o", "g", "--flow", "NSF"], ["--flow: expected WaveNet for signals"]),
    "a setting of rows": (2, ["fit", "a.wav", "-o", "g", "--hidden", "8"], ["--hidden: --flow WaveNet does not take"]),
    "effort": (2, ["fit", "a.wav", "-o", "g", "--effort", "high"], ["--effort: --flow WaveNet does not take it"]),
    "a network for a table": (2, ["fit", "t.csv", "-o", "g", "--flow", "WaveNet"], ["of signals: expected .wav files"]),
    "layers for a table": (2, ["fit", "t.csv", "-o", "g", "--set", "layers=3"], ["layers: expected a keyword"]),
    "the output": (1, ["fit", "a.wav", "-o", "./a.wav"], ["--output: expected another file", "a.wav"]),
    "a compressed sound": (2, ["fit", "a.mp3", "-o", "g"], ["'a.mp3'; ffmpeg -i a.mp3 -c:a pcm_s16le new.wav"]),
    "a table to score": (1, ["score", "f.safetensors", "t.csv"], ["rows of a table, got a WaveNet", ".wav"]),
    "a flow of rows for a signal": (1, ["score", "r.safetensors", "a.wav"], ["expected a flow of signals, got a MAF"]),
    "a context to score": (1, ["score", "f.safetensors", "a.wav", "--context", "1"], ["--context: expected none for"]),
    "covariates of a table": (2, ["fit", "t.csv", "-o", "g", "--covariates", "c"], ["--covariates: tables do not"]),
    "covariates of rows": (
        2,
        ["sample", "r.safetensors", "-n", "9", "--covariates", "t.csv"],
        ["--covariates: expected a flow of signals with it"],
    ),
    "steps of two": (2, ["score", "f.safetensors", "a.wav", "a.wav", "--steps"], ["give a folder/", "2 signals"]),
    "a folder without steps": (2, ["score", "f.safetensors", "a.wav", "-o", "s/"], ["with a folder give --steps"]),
    "steps of a table": (2, ["score", "r.safetensors", "t.csv", "--steps"], ["--steps: tables do not take it"]),
    "a format": (2, ["score", "f.safetensors", "a.wav", "--format", "npy"], ["--format: give a folder"]),
    "no rate": (1, ["sample", "n.safetensors", "--steps", "9", "-o", "s.wav"], ["expected a file with the rate"]),
    "no length": (2, ["sample", "f.safetensors", "-o", "s.wav"], ["-n/--rows, or for signals --steps or --seconds"]),
    "rows of a signal": (2, ["sample", "f.safetensors", "-n", "9", "-o", "s.wav"], ["--rows: signals do not take it"]),
    "two lengths": (
        2,
        ["sample", "f.safetensors", "--steps", "9", "--seconds", "1", "-o", "s.wav"],
        ["--steps, --seconds: expected one of them", "got both"],
    ),
    "less than a step": (1, ["sample", "f.safetensors", "--seconds", "1e-9", "-o", "s.wav"], ["at least one step"]),
    "too many steps": (1, ["sample", "f.safetensors", "--steps", "3000000000", "-o", "s.wav"], ["at most 4 GiB"]),
    "no output": (2, ["sample", "f.safetensors", "--steps", "9"], ["--output: expected a .wav file", "got nothing"]),
    "a table as output": (2, ["sample", "f.safetensors", "--steps", "9", "-o", "s.csv"], ["a .wav file", "s.csv"]),
    "the prefix as output": (
        1,
        ["sample", "f.safetensors", "--steps", "9", "--continue", "a.wav", "-o", "a.wav"],
        ["--output: expected another file than a.wav"],
    ),
    "steps of rows": (2, ["sample", "r.safetensors", "--steps", "9"], ["--steps: expected a flow of signals"]),
    "a signal of rows": (2, ["sample", "r.safetensors", "-n", "9", "-o", "s.wav"], ["for rows, got s.wav"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_command_lines(folder, run, name):
    expected, arguments, patterns = WRONG[name]
    write_wave("a.wav", values(200))
    np.savetxt("t.csv", table(20), delimiter=",")
    signal_flow()
    signal_flow("n.safetensors", note=False)
    small_flow("r.safetensors")
    code, out, err = run(*arguments)
    assert (code, out) == (expected, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("headrace")
    for pattern in patterns:
        assert pattern in err
    assert not (folder / "g").exists()
    assert not (folder / "s.wav").exists()


@pytest.mark.parametrize(
    "note", ["", "[]", "{}", '{"rate": 0, "bits": 16, "step": 1}', '{"rate": 8000, "bits": 24, "step": 1}', "1" * 5000]
)
def test_a_foreign_note_is_no_rate(folder, run, note):
    files.save(hr.WaveNet(layers=2, channels=4), "f.safetensors", {"signal": note})
    write_wave("a.wav", values(20))
    check_error(*run("score", "f.safetensors", "a.wav"), ["f.safetensors: expected a file with the rate"])
    assert run("info", "f.safetensors")[0] == 0


def test_a_value_that_is_not_finite_is_written_nowhere():
    with pytest.raises(ValueError, match="finite values"):
        waves.rounded(np.array([[0.0], [np.nan]]))


def test_interrupted_before_better_weights(folder, run, monkeypatch):
    write_wave("a.wav", values(200))

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(hr.WaveNet, "fit", interrupted)
    code, _, err = run("fit", "a.wav", "-o", "f.safetensors", *SMALL)
    assert code == 130
    assert "nothing was saved" in err
    assert not (folder / "f.safetensors").exists()
