"""Hostile artefacts are refused with exit code 4, and a canary shows that none of their code ever ran.

Each artefact is live: opened by the plain road (`naive`), it does make its canary.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import zipfile

import adapter_artefacts as made
import pytest
import torch

from medtrust.cli import main


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "canary"


@pytest.fixture
def refused(tmp_path, canary, capsys):
    """Ask the command line for a sample, as anybody would; return what it said."""

    def ask(spec, *words, options=()):
        assert main(["sample", spec, "--n", "1", "--out", str(tmp_path / "out"), *options]) == 4
        assert not canary.exists()
        assert not (tmp_path / "out").exists() or not any((tmp_path / "out").glob("*.png"))
        said = capsys.readouterr().err
        for word in words:
            assert word in said
        return said

    return ask


def naive(plain_road, canary):
    """Take the plain road, here where its libraries are loaded, and expect the canary of it; then clean up."""
    with contextlib.suppress(Exception):  # what comes after the canary may fail as it likes
        plain_road()
    assert canary.exists(), "this artefact is not hostile, so refusing it proves nothing"
    canary.unlink()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A sound .pt2, which torch takes seconds to write."""
    return made.pt2(tmp_path_factory.mktemp("exported") / "good.pt2")


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_a_pickle_needs_permission(tmp_path, canary, refused, protocol):
    """Without --allow-code no pickle is opened at all."""
    path = tmp_path / "network.pkl"
    path.write_bytes(made.pickled_bomb(canary, protocol))
    naive(lambda: pickle.loads(path.read_bytes()), canary)
    refused(f"stylegan:{path}", "--allow-code")


def test_a_permitted_pickle_is_held_to_what_a_stylegan_needs(tmp_path, canary, refused):
    """With --allow-code it may import StyleGAN's own modules, and nothing else."""
    for name in ("torch_utils", "dnnlib"):
        (tmp_path / "repo" / name).mkdir(parents=True)
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps({"G_ema": made.Bomb(canary)}))
    refused(f"stylegan:{path}?repo={tmp_path / 'repo'}", "builtins.exec", options=("--allow-code",))


def test_a_hostile_torchscript_pickle(tmp_path, canary, refused):
    good = made.torchscript(tmp_path / "good.ts")
    bomb = made.pickled_bomb(canary)
    bad = made.replaced(good, tmp_path / "bad.ts", lambda name, old: bomb if name.endswith("data.pkl") else old)
    refused(f"torchscript:{bad}?latent=4&output=-1:1", "__builtin__.exec")


def test_a_torchscript_that_writes_files(tmp_path, canary, refused):
    """TorchScript has no imports, but `torch.from_file(shared=True)` makes a file."""
    good = made.torchscript(tmp_path / "good.ts")
    call = f'torch.from_file("{canary}", True, 4, dtype=6)'

    def change(name, old):
        return old.replace(b".forward(z, )", f".forward(torch.add(z, {call}), )".encode())

    bad = made.replaced(good, tmp_path / "bad.ts", change)
    naive(lambda: torch.jit.load(str(bad))(torch.zeros(1, 4)), canary)
    refused(f"torchscript:{bad}?latent=4&output=-1:1", "from_file")


def test_a_pt2_with_pickled_weights(tmp_path, canary, refused, exported):
    """A .pt2 may say that a weight is a pickle; torch.export then loads it with weights_only=False."""
    bomb = made.saved_bomb(canary)

    def change(name, old):
        if name.endswith("model_weights_config.json"):
            return old.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
        return bomb if name.endswith("weights/weight_0") else old

    bad = made.replaced(exported, tmp_path / "bad.pt2", change)
    naive(lambda: torch.export.load(str(bad)), canary)
    refused(f"pt2:{bad}?latent=4&output=-1:1", "exec")


def test_a_pt2_whose_sizes_are_code(tmp_path, canary, refused, exported):
    """A symbolic size is evaluated by sympy, that is, by Python's eval."""
    code = f"__import__('pathlib').Path('{canary}').touch()"

    def change(name, old):
        if not name.endswith("models/model.json"):
            return old
        graph = json.loads(old)
        for meta in graph["graph_module"]["graph"]["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code
        return json.dumps(graph).encode()

    bad = made.replaced(exported, tmp_path / "bad.pt2", change)
    naive(lambda: torch.export.load(str(bad)), canary)
    refused(f"pt2:{bad}?latent=4&output=-1:1", "as a size")


def test_a_pt2_that_calls_into_python(tmp_path, canary, refused, exported):
    """The target of a node is looked up from the torch module, which knows `os`."""

    def change(name, old):
        return old.replace(b"torch.ops.aten.tanh.default", b"torch.os.system") if name.endswith("model.json") else old

    bad = made.replaced(exported, tmp_path / "bad.pt2", change)
    refused(f"pt2:{bad}?latent=4&output=-1:1", "torch.os.system")


def test_a_pt2_with_compiled_code(tmp_path, refused, exported):
    good = shutil.copy(exported, tmp_path / "good.pt2")
    with zipfile.ZipFile(good, "a") as archive:
        archive.writestr("good/data/aotinductor/model/library.so", b"\x7fELF")
    refused(f"pt2:{good}?latent=4&output=-1:1", "compiled code")


@pytest.mark.parametrize(
    "extra",
    [
        {"imports": ["$import os"]},
        {"imports": ["$from subprocess import run"]},
        {"run": ["$__import__('os').system('touch CANARY')"]},
        {"run": ["$(lambda: 0).__globals__"]},
        {"run": ["$open('CANARY', 'w')"]},
        {"dataset": {"_target_": "os.system", "command": "touch CANARY"}},
        {"dataset": {"_target_": "builtins.exec", "_mode_": "default"}},
        {"dataset": {"_target_": "monai.data.Dataset", "_mode_": "debug"}},
        {"run": ["$torch.hub.load('a/b', 'c')"]},
    ],
    ids=lambda extra: json.dumps(extra)[:40],
)
def test_a_hostile_monai_config(tmp_path, canary, refused, extra):
    """A configuration is code where it begins with `$`; it is read here, never evaluated."""
    pytest.importorskip("monai", reason="the extra [monai] is not installed")
    text = json.dumps(extra).replace("CANARY", str(canary))
    bundle = made.monai_bundle(tmp_path / "bundle", **json.loads(text))
    refused(f"monai:{bundle}?latent=6", "do not use it" if "_mode_" not in text.replace('"default"', "") else "")


def test_the_monai_config_is_live(tmp_path, canary):
    """MONAI's own parser runs the expression that is refused here."""
    pytest.importorskip("monai", reason="the extra [monai] is not installed")
    from monai.bundle import ConfigParser

    naive(lambda: ConfigParser({"a": f"$open('{canary}', 'w')"}).get_parsed_content("a"), canary)


def test_monai_weights_that_are_code(tmp_path, canary, refused):
    pytest.importorskip("monai", reason="the extra [monai] is not installed")
    bundle = made.monai_bundle(tmp_path / "bundle")
    (bundle / "models" / "model.pt").write_bytes(made.saved_bomb(canary))
    naive(lambda: torch.load(bundle / "models" / "model.pt", weights_only=False), canary)
    refused(f"monai:{bundle}?latent=6", "exec")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"unet": ["my_unet", "MyUNet"]}, "my_unet"),
        ({"_class_name": ["pipeline", "MyPipeline"]}, "MyPipeline"),
        ({"_class_name": "../pipeline"}, "pipeline"),
        ({"unet": ["diffusers", "os.system"]}, "os.system"),
        ({"unet": ["torch", "load"]}, "load"),
        ({"custom_pipeline": "someone/pipeline"}, "custom_pipeline"),
        ({"extra": {"auto_map": {"AutoModel": "code.Model"}}}, "auto_map"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_diffusers_index_with_remote_code(tmp_path, canary, refused, change, word):
    """Every entry of the index is a class of diffusers or transformers, or the folder is refused."""
    pytest.importorskip("diffusers", reason="the extra [diffusers] is not installed")
    folder = made.diffusers_folder(tmp_path / "pipeline")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, **change}))
    refused(f"diffusers:{folder}", word)


def test_a_diffusers_folder_with_code_or_pickles(tmp_path, canary, refused):
    pytest.importorskip("diffusers", reason="the extra [diffusers] is not installed")
    folder = made.diffusers_folder(tmp_path / "pipeline")
    code = folder / "unet" / "my_unet.py"
    code.write_text(f"open({str(canary)!r}, 'w')")
    refused(f"diffusers:{folder}", "is code")
    code.unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(made.saved_bomb(canary))
    refused(f"diffusers:{folder}", "pickle")


@pytest.mark.parametrize("name", ["../canary", "/srv/canary", "a/../../canary", "a\\..\\canary", "C:canary"])
@pytest.mark.parametrize("kind", ["monai", "torchscript", "pt2"])
def test_a_zip_that_climbs_out(tmp_path, canary, refused, kind, name):
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "out")
    refused(f"{kind}:{path}?latent=4&output=-1:1", "leaves the folder")


def test_a_permitted_zip_that_climbs_out(tmp_path, canary, refused):
    """Permission to run a package is no permission to write beside it."""
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("package/__init__.py", f"open({str(canary)!r}, 'w')")
        archive.writestr("../canary", "out")
    refused(f"medigan:{path}?output=-1:1", "leaves the folder", options=("--allow-code",))


def test_zips_with_links_doubles_and_bombs(tmp_path, refused):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    cases = {
        "link": [(link, b"/etc/passwd")],
        "twice": [("a", b"1"), ("A", b"2")],
        "bomb": [("zeros", b"\0" * (300 * 1024**2))],
    }
    for word, members in cases.items():
        path = tmp_path / f"{word}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, content in members:
                archive.writestr(name, content)
        refused(f"monai:{path}", word)


def test_an_onnx_model_that_reads_outside(tmp_path, refused):
    pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
    for location in ("../secret", "/etc/passwd"):
        refused(f"onnx:{made.onnx_image(tmp_path / 'm.onnx', location=location)}?output=-1:1", "outside its folder")
    refused(f"onnx:{made.onnx_image(tmp_path / 'm.onnx', domain='evil')}?output=-1:1", "library of their own")


@pytest.mark.parametrize("spec", ["python:os:getcwd", "medigan:.", "stylegan:."])
def test_code_is_refused_by_default(refused, spec):
    refused(spec, "--allow-code")


def test_tensors_pass_the_scan(tmp_path):
    """What torch itself writes for weights is let through."""
    from medtrust_adapters.pickles import check_pickle

    torch.save(
        {"w": torch.zeros(2, dtype=torch.bfloat16), "n": 3, "p": torch.nn.Parameter(torch.ones(1))}, tmp_path / "w"
    )
    with zipfile.ZipFile(tmp_path / "w") as archive:
        for name in archive.namelist():
            if name.endswith(".pkl"):
                check_pickle(archive.read(name), name)
