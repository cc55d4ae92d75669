"""Folders, checkpoints and services: what holds numbers alone."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from medtrust.cli import main
from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.images import write_set
from medtrust.types import Intensity
from medtrust_adapters.folder import Folder
from medtrust_adapters.http import Http
from medtrust_adapters.zoo import Zoo

HU = Intensity(-1024.0, 3071.0, "HU")


def fields(n, dtype=np.int16, shape=(1, 6, 5), seed=0):
    return np.random.default_rng(seed).integers(-1000, 2000, (n, *shape)).astype(dtype)


def test_a_folder_is_drawn_without_replacement(tmp_path):
    """Every image once, in an order that the seed decides, in its own unit and depth."""
    images = fields(12)
    write_set(tmp_path / "set", ((f"i{i}", image) for i, image in enumerate(images)), HU)
    generator = Folder().open(tmp_path / "set", {}, "cpu")
    assert (generator.spec.unit, generator.spec.dtype, generator.spec.shape) == ("HU", "int16", (1, 6, 5))
    drawn = generator.sample(12, seed=3).pixels
    assert sorted(image.tobytes() for image in drawn) == sorted(image.tobytes() for image in images)
    assert generator.sample(5, seed=3, first=4).pixels.tobytes() == drawn[4:9].tobytes()
    assert generator.sample(12, seed=4).pixels.tobytes() != drawn.tobytes()
    with pytest.raises(DataError, match="has 12 images"):
        generator.sample(1, seed=3, first=12)


def test_an_npz_is_a_folder_too(tmp_path):
    images = fields(7)
    np.savez(tmp_path / "set.npz", images=images, intensity=np.array([-1024, 3071]), unit=np.array("HU"))
    assert Folder().open(tmp_path / "set.npz", {}, "cpu").sample(7, seed=0).pixels.shape == images.shape


def test_dicom_and_nifti_folders(tmp_path):
    """The files that pydicom ships, and a NIfTI volume that nibabel writes."""
    import shutil

    import nibabel
    from pydicom.data import get_testdata_file

    (tmp_path / "dicom").mkdir()
    shutil.copy(get_testdata_file("CT_small.dcm"), tmp_path / "dicom")
    generator = Folder().open(tmp_path / "dicom", {}, "cpu")
    assert (generator.spec.unit, generator.spec.modality) == ("HU", "CT")
    assert generator.sample(1, seed=0).pixels.min() < -500
    volume = nibabel.Nifti1Image(fields(1, shape=(6, 5, 4))[0], np.diag([0.7, 0.7, 2, 1]))
    nibabel.save(volume, tmp_path / "volume.nii.gz")
    drawn = Folder().open(tmp_path / "volume.nii.gz", {"range": "-1024:3071:HU"}, "cpu").sample(2, seed=0).pixels
    assert drawn.shape[0] == 2


def test_images_of_two_shapes_are_no_generator(tmp_path):
    write_set(tmp_path / "set", [("a", fields(1)[0]), ("b", fields(1, shape=(1, 7, 7))[0])], HU)
    with pytest.raises(DataError, match="one shape"):
        Folder().open(tmp_path / "set", {}, "cpu")


def test_the_zoo_opens_a_checkpoint_by_its_card(tmp_path):
    """`zoo:` draws the bytes that the kind itself draws."""
    images = np.random.default_rng(0).integers(0, 255, (24, 1, 8, 8)).astype(np.uint8)
    write_set(tmp_path / "real", ((f"i{i}", image) for i, image in enumerate(images)), Intensity(0.0, 255.0, "level"))
    options = [word for pair in ("steps=2", "batch=4", "width=16") for word in ("--option", pair)]
    assert main(["train", "vae", "--data", str(tmp_path / "real"), "--out", str(tmp_path / "vae"), *options]) == 0
    for kind in ("vae", "zoo"):
        assert main(["sample", f"{kind}:{tmp_path / 'vae'}", "--n", "3", "--out", str(tmp_path / f"by-{kind}")]) == 0
    one, two = ([p.read_bytes() for p in sorted((tmp_path / f"by-{kind}").glob("*.png"))] for kind in ("vae", "zoo"))
    assert len(one) == 3
    assert one == two


def test_the_zoo_says_what_it_does_not_know(tmp_path):
    (tmp_path / "card.json").write_text(json.dumps({"kind": "python"}))
    with pytest.raises(ConfigError, match="kind 'python'"):
        Zoo().open(tmp_path, {}, "cpu")
    (tmp_path / "card.json").write_text("[")
    with pytest.raises(DataError, match=r"card\.json"):
        Zoo().open(tmp_path, {}, "cpu")


class Service(BaseHTTPRequestHandler):
    """A model `scale` that speaks the Open Inference Protocol v2: noise [n, 4] to images [n, 1, 2, 2]."""

    answer = "ok"

    def do_GET(self):
        if self.answer == "redirect":
            self.send_response(302)
            self.send_header("Location", "http://elsewhere.example/")
            self.end_headers()
        elif self.path == "/v2/health/ready":
            self.reply({"ready": True})
        elif self.path == "/v2/models/scale":
            noise = {"name": "z", "datatype": "FP32", "shape": [-1, 4]}
            output = {"name": "image", "datatype": "FP32", "shape": [-1, 1, 2, 2]}
            facts = {"name": "scale", "versions": ["3"], "platform": "test", "inputs": [noise], "outputs": [output]}
            self.reply(facts)
        elif self.path == "/v2/models/by-seed":
            inputs = [{"name": name, "datatype": "INT64", "shape": [-1, 1]} for name in ("seed", "label")]
            self.reply({"name": "by-seed", "inputs": inputs, "outputs": []})
        else:
            self.reply({"error": "no such model"}, 404)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        given = {i["name"]: np.array(i["data"]).reshape(i["shape"]) for i in asked["inputs"]}
        if "z" in given:
            images = np.tanh(given["z"]).reshape(-1, 1, 2, 2)
        else:
            images = np.stack([np.random.default_rng(int(s)).uniform(-1, 1, (1, 2, 2)) for s in given["seed"].ravel()])
            images = images * 0.1 + given["label"].reshape(-1, 1, 1, 1) * 0.5
        shape = list(images.shape) if self.answer != "short" else [*images.shape[:-1], 3]
        output = {"name": "image", "datatype": "FP32", "shape": shape, "data": images.ravel().tolist()}
        self.reply({"model_name": "scale", "outputs": [output]})

    def reply(self, body, code=200):
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words):
        pass


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setattr(Service, "answer", "ok")
    server = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_service_over_loopback(service):
    """Noise goes out as a tensor, images come back, and the batch changes nothing."""
    generator = Http().open(service, {"model": "scale", "output": "-1:1", "chunk": "4"}, "cpu")
    whole = generator.sample(9, seed=2).pixels
    assert whole.shape == (9, 1, 2, 2)
    assert generator.sample(2, seed=2, first=5).pixels.tobytes() == whole[5:7].tobytes()
    assert generator.artifact == {"model": "scale", "platform": "test", "versions": "3"}


def test_a_service_by_seed_and_label(service):
    """A model that takes seeds and labels gets them, one per image."""
    options = {"model": "by-seed", "output": "-1:1", "classes": "healthy,ill"}
    generator = Http().open(service, options, "cpu")
    ill = generator.sample(3, seed=2, condition=["ill"] * 3).pixels.astype(int)
    healthy = generator.sample(3, seed=2, condition=["healthy"] * 3).pixels.astype(int)
    assert np.abs(ill - healthy - 64).max() <= 1


def test_a_service_that_misbehaves(service, monkeypatch):
    options = {"model": "scale", "output": "-1:1"}
    monkeypatch.setattr(Service, "answer", "short")
    with pytest.raises(DataError, match="no tensor"):
        Http().open(service, options, "cpu")
    monkeypatch.setattr(Service, "answer", "redirect")
    with pytest.raises(SafetyError, match="redirects"):
        Http().open(service, options, "cpu")
    with pytest.raises(ConfigError, match="no address"):
        Http().open("file:///etc/passwd", options, "cpu")


def test_an_unknown_model_and_no_service(service):
    with pytest.raises(DataError, match="404"):
        Http().open(service, {"model": "other", "output": "-1:1"}, "cpu")
    with pytest.raises(DataError, match="cannot be reached"):
        Http().open("http://127.0.0.1:1", {"model": "scale", "output": "-1:1", "seconds": "2"}, "cpu")


def test_offline_means_offline(service, tmp_path, capsys):
    """The command line refuses before a socket is opened; online it draws."""
    spec = f"http:{service}?model=scale&output=-1:1"
    assert main(["sample", spec, "--n", "2", "--out", str(tmp_path / "a"), "--offline"]) == 2
    assert "--offline" in capsys.readouterr().err
    assert main(["sample", spec, "--n", "2", "--out", str(tmp_path / "b")]) == 0
    assert len(list((tmp_path / "b").glob("*.png"))) == 2
