"""Generators in a process of their own: what they draw, and what their process cannot do."""

from __future__ import annotations

import textwrap
import zipfile

import adapter_artefacts as made
import numpy as np
import pytest
import torch

from medtrust.errors import ConfigError, DataError
from medtrust.sandbox.process import Limits
from medtrust.seeding import derive_seed
from medtrust_adapters.confined import Medigan, Pt2, PythonEntry, StyleGan, TorchScript, _sandbox


def expected(module, seed, n, latent=4):
    """What the module makes of the noise of these samples, as 8-bit levels."""
    rows = [
        torch.randn(latent, generator=torch.Generator().manual_seed(derive_seed(seed, "sample", i))) for i in range(n)
    ]
    with torch.no_grad():
        output = module(torch.stack(rows)).double().numpy()
    return ((output + 1) / 2 * 255).clip(0, 255).round().astype(np.uint8)


def same_whatever_the_batch(generator, seed=11, n=21):
    """Draw at once, one by one and from the middle."""
    whole = generator.sample(n, seed=seed).pixels
    single = np.concatenate([generator.sample(1, seed=seed, first=i).pixels for i in range(n)])
    assert whole.tobytes() == single.tobytes()
    assert generator.sample(3, seed=seed, first=n - 3).pixels.tobytes() == whole[-3:].tobytes()
    assert generator.sample(n, seed=seed + 1).pixels.tobytes() != whole.tobytes()
    assert generator.sample(0, seed=seed).pixels.shape == (0, *whole.shape[1:])
    return whole


@pytest.mark.parametrize(
    ("factory", "write"), [(TorchScript, made.torchscript), (Pt2, made.pt2)], ids=["torchscript", "pt2"]
)
def test_a_graph_draws_what_its_module_draws(tmp_path, factory, write):
    """A file that torch wrote gives the images of the module it was written from, batch by batch."""
    path = write(tmp_path / "model")
    generator = factory().open(path, {"latent": "4", "output": "-1:1", "chunk": "8"}, "cpu")
    assert generator.spec.shape == (3, 4, 5)
    assert generator.caps.trust == "graph"
    drawn = same_whatever_the_batch(generator)
    assert np.abs(drawn.astype(int) - expected(made.seeded(made.Tiny), 11, 21)).max() <= 1
    assert set(generator.artifact["confined"]) == {"network", "files", "memory", "cpu"}
    generator.close()


def test_a_graph_with_classes(tmp_path):
    """Labels reach the graph; without any, the generator chooses by the seed and says what it chose."""
    path = made.torchscript(tmp_path / "model", made.seeded(made.TinyByClass, 3))
    options = {"latent": "4", "output": "-1:1", "classes": "benign,malignant,other"}
    generator = TorchScript().open(path, options, "cpu")
    one = generator.sample(6, seed=0, condition=["benign"] * 6).pixels.astype(int)
    two = generator.sample(6, seed=0, condition=["other"] * 6).pixels.astype(int)
    assert np.abs(one - two).mean() > 4 * np.abs(one - one[:1]).mean()
    chosen = generator.sample(40, seed=0)
    assert set(chosen.condition) == {"benign", "malignant", "other"}
    again = generator.sample(5, seed=0, first=7, condition=chosen.condition[7:12])
    assert again.pixels.tobytes() == chosen.pixels[7:12].tobytes()
    with pytest.raises(ConfigError, match="no class"):
        generator.sample(1, seed=0, condition=["unknown"])
    generator.close()


def test_nothing_is_guessed(tmp_path):
    """Range and noise are stated, or the sentence says how to state them."""
    path = made.torchscript(tmp_path / "model")
    with pytest.raises(ConfigError, match="output=LO:HI"):
        TorchScript().open(path, {"latent": "4"}, "cpu")
    with pytest.raises(ConfigError, match="latent=128"):
        TorchScript().open(path, {"output": "-1:1"}, "cpu")
    with pytest.raises(ConfigError, match="CPU"):
        TorchScript().open(path, {"latent": "4", "output": "-1:1"}, "cuda")


@pytest.mark.slow
def test_noise_of_another_length(tmp_path):
    """What the graph says against its noise comes back as a sentence."""
    path = made.torchscript(tmp_path / "model")
    with pytest.raises(DataError, match="failed in its own process"):
        TorchScript().open(path, {"latent": "5", "output": "-1:1"}, "cpu")


FACTORY = """
import numpy as np

class Noise:
    def __init__(self, size="4"):
        self.size = int(size)

    def sample(self, n, *, seed, first=0):
        draw = np.random.default_rng(seed)
        return draw.integers(0, 256, (n, 1, self.size, self.size), dtype=np.uint8)
"""


def package(tmp_path, code):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_text(textwrap.dedent(code))
    return {"root": str(tmp_path / "code"), "output": "0:255"}


def test_a_python_entry_point(tmp_path):
    """Options that are not ours go to the factory; the report gets the SHA-256 of the file."""
    options = package(tmp_path, FACTORY)
    generator = PythonEntry().open("mine:Noise", {**options, "size": "6"}, "cpu")
    assert same_whatever_the_batch(generator, n=5).shape == (5, 1, 6, 6)
    assert len(generator.artifact["sha256"]) == 64
    assert generator.caps.trust == "code"
    generator.close()
    with pytest.raises(ConfigError, match="no factory"):
        PythonEntry().open("os.system('x')", {}, "cpu")


def test_hounsfield_units_are_kept(tmp_path):
    """An output of -1..1 declared as -1024..3071 HU comes out as such, in float32, without losing a level."""
    code = """
    import numpy as np

    def make():
        return lambda n, *, seed: np.tanh(np.random.default_rng(seed).normal(size=(n, 3, 4, 5)))
    """
    declared = {"output": "-1:1", "range": "-1024:3071:HU", "spacing": "0.7,0.7", "modality": "CT"}
    generator = PythonEntry().open("mine:make", {**package(tmp_path, code), **declared}, "cpu")
    batch = generator.sample(4, seed=1)
    assert (generator.spec.unit, generator.spec.dtype, generator.spec.spacing_mm) == ("HU", "float32", (0.7, 0.7))
    levels = generator.values.pixels(np.array([-1.0, 0, 1, 1.5]).reshape(4, 1, 1, 1))
    assert levels[0].ravel().tolist() == [-1024, 1023.5, 3071, 3071]
    assert levels[1].tolist() == [0, 0, 0, 1]  # what was clipped is counted
    assert batch.pixels.min() < 500 < batch.pixels.max()
    generator.close()


ATTEMPTS = """
import json, os, socket, subprocess
import numpy as np

def attempt(what, call):
    try:
        call()
        return f"{what} worked"
    except Exception as error:
        return ""

class Prober:
    def __init__(self, outside, secret):
        found = [
            attempt("write", lambda: open(outside, "w")),
            attempt("read", lambda: open(secret).read()),
            attempt("list", lambda: os.listdir(os.path.dirname(secret))),
            attempt("connect", lambda: socket.create_connection(("127.0.0.1", int(os.environ.get("PORT", "9"))), 2)),
            attempt("child", lambda: subprocess.run(["/bin/sh", "-c", f"echo > {outside}"], check=True)),
            attempt("parent", lambda: open(f"/proc/{os.getppid()}/environ").read()),
            "environment" if "MEDTRUST_PSEUDONYM_KEY" in os.environ else "",
        ]
        open("scratch", "w").write("allowed")
        found = [f for f in found if f]
        if found:
            raise RuntimeError(", ".join(found))

    def sample(self, n, *, seed):
        return np.zeros((n, 1, 2, 2))
"""


def test_the_process_is_shut_in(tmp_path):
    """It writes nowhere, reads no data, reaches no socket and inherits no secret; its children neither."""
    secret = tmp_path / "data" / "patient.txt"
    secret.parent.mkdir()
    secret.write_text("a name")
    outside = tmp_path / "outside"
    options = package(tmp_path, ATTEMPTS)
    generator = PythonEntry().open("mine:Prober", {**options, "outside": str(outside), "secret": str(secret)}, "cpu")
    held = {key: generator.artifact["confined"][key] for key in ("network", "files")}
    generator.close()
    if held != {"network": "none", "files": "confined"}:
        pytest.skip(f"this kernel confines no more than {held}")
    assert not outside.exists()


@pytest.mark.parametrize(
    ("body", "options", "word"),
    [
        ("while True: pass", {"cpu_s": "1"}, "signal"),
        ("import time; time.sleep(60)", {"wall_s": "1"}, "no answer within 1 s"),
        ("x = np.ones((4, 1024, 1024, 1024))", {"memory_gb": "4"}, "MemoryError"),
        ("open('big', 'wb').write(bytes(3 * 1024**2))", {"file_mb": "1"}, "File too large|signal"),
        ("import os; os._exit(3)", {}, "ended with code 3"),
        ("print('hello'); return np.full((n, 1, 2, 2), np.nan)", {}, "not numbers"),
        ("return np.zeros((n, 2))", {}, r"N, C, H, W"),
        ("return np.array([['text']])", {}, "numbers"),
    ],
    ids=["cpu", "wall", "memory", "file", "exit", "nan", "shape", "text"],
)
def test_limits_end_in_a_sentence(tmp_path, body, options, word):
    """Whatever the code does, the audit goes on and says what happened."""
    code = f"import numpy as np\n\ndef make():\n    return sample\n\ndef sample(n, *, seed):\n    {body}\n"
    with pytest.raises(DataError, match=word):
        PythonEntry().open("mine:make", {**package(tmp_path, code), **options}, "cpu")


LIARS = {
    "shape": (b'{"array": {"shape": [9, 9, 9, 9], "dtype": "<f8"}}\n', "no answer within 2 s"),
    "huge": (b'{"array": {"shape": [1, 1048576, 1048576, 1], "dtype": "<f8"}}\n', "more than 2 GiB"),
    "negative": (b'{"array": {"shape": [1, 1, -2, 2], "dtype": "<f8"}}\n', "were asked for"),
    "object": (b'{"array": {"shape": [1, 1, 2, 2], "dtype": "|O"}}\n', "were asked for"),
    "no array": (b'{"array": 3}\n', "were asked for"),
    "nested": (b"[" * 60000 + b"\n", "not JSON"),
    "no JSON": (b"\xff\n", "not JSON"),
    "endless": (b"x" * 70000, "where one line was expected"),
}


@pytest.mark.parametrize("what", LIARS)
def test_answers_are_not_trusted(tmp_path, what):
    """Code that takes the channel for itself cannot make the audit read, allocate or wait without end."""
    said, sentence = LIARS[what]
    code = f"""
    import os, stat

    def make():
        return sample

    def sample(n, *, seed):
        for channel in range(3, 20):
            try:
                if stat.S_ISFIFO(os.fstat(channel).st_mode):
                    os.write(channel, {said!r})
            except OSError:
                pass
        while True:
            pass
    """
    with pytest.raises(DataError, match=sentence):
        PythonEntry().open("mine:make", {**package(tmp_path, code), "wall_s": "2"}, "cpu")


MEDIGAN = """
import pathlib
import numpy as np
import torch

def generate(model_file, num_samples, output_path, save_images, image_size=8):
    weights = torch.load(model_file, weights_only=True)
    noise = torch.randn(num_samples, 4)
    images = (noise @ weights).reshape(num_samples, image_size, image_size).tanh()
    return [image.numpy() for image in images]
"""


@pytest.mark.parametrize(
    "zipped", [pytest.param(False, marks=pytest.mark.slow, id="folder"), pytest.param(True, id="zip")]
)
def test_a_medigan_package(tmp_path, zipped):
    """`generate` is called with medigan's arguments, once per image, with every source of chance seeded."""
    folder = tmp_path / "MYMODEL"
    folder.mkdir()
    (folder / "__init__.py").write_text(MEDIGAN)
    torch.save(torch.arange(256.0).reshape(4, 64).sin(), folder / "weights.pt")
    execution = '{"execution": {"model_name": "weights", "extension": ".pt", "generate_method": {"name": "generate", '
    (folder / "config.json").write_text(execution + '"args": {"base": ["model_file"], "custom": {"image_size": 8}}}}}')
    path = folder
    if zipped:
        path = tmp_path / "package.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in folder.iterdir():
                archive.write(file, f"MYMODEL/{file.name}")
    generator = Medigan().open(path, {"output": "-1:1"}, "cpu")
    assert same_whatever_the_batch(generator, n=3).shape == (3, 1, 8, 8)
    generator.close()


PERSISTENCE = """
import sys, types

def _reconstruct_persistent_obj(meta):
    module = types.ModuleType("persistent")
    exec(meta["module_src"], module.__dict__)
    made = module.__dict__[meta["class_name"]].__new__(module.__dict__[meta["class_name"]])
    made.__setstate__(meta["state"])
    return made
"""
SOURCE = """
import torch

class Generator(torch.nn.Module):
    def __setstate__(self, state):
        torch.nn.Module.__init__(self)
        self.__dict__.update(state)

    def forward(self, z, c, truncation_psi=1, noise_mode="random"):
        assert noise_mode == "const"
        return torch.tanh(truncation_psi * z).reshape(-1, 1, 2, 3) + 0 * c.sum()
"""
WRITER = """
import pickle, sys
sys.path.insert(0, sys.argv[1])
from torch_utils import persistence

class Kept:
    def __reduce__(self):
        meta = {"module_src": open(sys.argv[2]).read(), "class_name": "Generator", "state": {"z_dim": 6, "c_dim": 0}}
        return persistence._reconstruct_persistent_obj, (meta,)

pickle.dump({"G_ema": Kept()}, open(sys.argv[3], "wb"))
"""


def test_a_stylegan_pickle(tmp_path):
    """A pickle whose class travels as source, as the official repositories write it, opens beside their code."""
    import subprocess
    import sys

    repo = tmp_path / "repo"
    (repo / "torch_utils").mkdir(parents=True)
    (repo / "dnnlib").mkdir()
    (repo / "torch_utils" / "__init__.py").touch()
    (repo / "torch_utils" / "persistence.py").write_text(PERSISTENCE)
    (tmp_path / "source.py").write_text(SOURCE)
    path = tmp_path / "network.pkl"
    subprocess.run([sys.executable, "-c", WRITER, repo, tmp_path / "source.py", path], check=True)
    with pytest.raises(ConfigError, match="repo=FOLDER"):
        StyleGan().open(path, {}, "cpu")
    generator = StyleGan().open(path, {"repo": str(repo)}, "cpu")
    drawn = same_whatever_the_batch(generator, n=4)
    tanh = lambda z: torch.tanh(z).reshape(-1, 1, 2, 3)  # noqa: E731
    assert np.abs(drawn.astype(int) - expected(tanh, 11, 4, latent=6)).max() <= 1
    generator.close()


def test_a_program_that_speaks_too_early_is_refused(tmp_path):
    """What an artefact says in place of the process while it is being opened is not taken for an answer."""
    code = """
    import os, stat

    for channel in range(3, 20):
        try:
            if stat.S_ISFIFO(os.fstat(channel).st_mode):
                os.write(channel, b'{"array": {}}' + bytes([10]))
        except OSError:
            pass

    def make():
        return lambda n, seed: None
    """
    with pytest.raises(DataError, match="something else when its facts"):
        PythonEntry().open("mine:make", package(tmp_path, code), "cpu")


def test_closing_ends_the_process(tmp_path):
    """No process and no folder stay behind."""
    config = {"factory": "mine:make", "root": _root(tmp_path), "options": {}}
    sandbox = _sandbox("python", "it", config, [tmp_path], Limits())
    process, folder = sandbox._process, sandbox._folder
    sandbox.close()
    assert process.poll() is not None
    assert not folder.exists()


def _root(tmp_path):
    return package(tmp_path, "def make():\n    return lambda n, seed: None\n")["root"]
