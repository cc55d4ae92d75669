"""ONNX, diffusers and MONAI artefacts, each made by the real library, draw what that library draws."""

from __future__ import annotations

import json
import zipfile

import adapter_artefacts as made
import numpy as np
import pytest
import torch

from medtrust.errors import ConfigError, DataError
from medtrust.seeding import derive_seed
from medtrust_adapters.diffusers_folder import Diffusers, check_diffusers
from medtrust_adapters.monai_bundle import Monai
from medtrust_adapters.onnx_graph import Onnx
from medtrust_adapters.series import noise_rows


def seeds(seed, n):
    return [derive_seed(seed, "sample", i) for i in range(n)]


def levels(output, lo, hi):
    return ((output.astype(np.float64) - lo) / (hi - lo)).clip(0, 1) * 255


def check_batches(generator, n=11):
    whole = generator.sample(n, seed=5).pixels
    single = np.concatenate([generator.sample(1, seed=5, first=i).pixels for i in range(n)])
    assert whole.tobytes() == single.tobytes()
    assert generator.sample(n, seed=6).pixels.tobytes() != whole.tobytes()
    return whole


class TestOnnx:
    pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

    def test_an_image_graph(self, tmp_path):
        """The images are those of onnx's own reference evaluator."""
        from onnx.reference import ReferenceEvaluator

        path = made.onnx_image(tmp_path / "m.onnx", metadata={"output": "-1:1"})
        generator = Onnx().open(path, {"chunk": "4"}, "cpu")
        drawn = check_batches(generator)
        (expected,) = ReferenceEvaluator(str(path)).run(None, {"z": noise_rows(seeds(5, 11), (4,))})
        assert np.abs(drawn - levels(expected, -1, 1)).max() <= 0.51
        assert generator.caps.trust == "graph"

    def test_labels(self, tmp_path):
        path = made.onnx_image(tmp_path / "m.onnx", classes=3)
        generator = Onnx().open(path, {"output": "-1:1", "classes": "a,b,c"}, "cpu")
        same = generator.sample(5, seed=1, condition=["b"] * 5).pixels.astype(int)
        other = generator.sample(5, seed=1, condition=["c"] * 5).pixels.astype(int)
        assert np.abs(same - other).mean() > 10
        with pytest.raises(ConfigError, match="classes="):
            Onnx().open(path, {"output": "-1:1"}, "cpu")

    @pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp2m", "dpmpp2m_sde"])
    def test_a_denoiser_graph(self, tmp_path, sampler):
        """The exact denoiser of one constant image leads every sampler to that image, in `steps` evaluations."""
        path = made.onnx_denoiser(tmp_path / "m.onnx", mean=0.25)
        generator = Onnx().open(path, {"steps": "7", "sampler": sampler, "dtype": "float32"}, "cpu")
        batch = generator.sample(3, seed=1)
        assert np.abs(batch.pixels - levels(np.float32(0.25), -1, 1)).max() < 1e-3
        assert batch.meta["nfe"] == 7

    def test_a_denoiser_does_not_depend_on_the_batch(self, tmp_path):
        """Stochastic samplers draw their noise per image too: with epsilon read as 0.25 the noise stays visible."""
        path = made.onnx_denoiser(tmp_path / "m.onnx")
        options = {"steps": "5", "sampler": "ddpm", "prediction": "epsilon", "chunk": "3", "output": "-4:4"}
        check_batches(Onnx().open(path, options, "cpu"), n=7)

    def test_what_is_missing_is_said(self, tmp_path):
        (tmp_path / "m.onnx").write_bytes(b"nothing of the kind")
        with pytest.raises(DataError, match="no ONNX model"):
            Onnx().open(tmp_path / "m.onnx", {"output": "-1:1"}, "cpu")
        with pytest.raises(ConfigError, match="knows no option 'latnet'"):
            Onnx().open(made.onnx_image(tmp_path / "m.onnx"), {"output": "-1:1", "latnet": "4"}, "cpu")


class TestDiffusers:
    pytest.importorskip("diffusers", reason="the extra [diffusers] is not installed")

    def test_a_pipeline_folder(self, tmp_path):
        """The images are those of the pipeline itself with the same generators."""
        from diffusers import DDPMPipeline

        folder = made.diffusers_folder(tmp_path / "pipeline")
        generator = Diffusers().open(folder, {"steps": "4", "chunk": "4"}, "cpu")
        drawn = check_batches(generator, n=5)
        pipeline = DDPMPipeline.from_pretrained(str(folder), use_safetensors=True)
        pipeline.set_progress_bar_config(disable=True)
        streams = [torch.Generator().manual_seed(seed) for seed in seeds(5, 4)]
        images = pipeline(batch_size=4, generator=streams, num_inference_steps=4, output_type="np").images
        assert np.abs(drawn[:4] - levels(images.transpose(0, 3, 1, 2), 0, 1)).max() <= 0.51
        assert generator.sample(1, seed=0).meta["nfe"] == 4
        assert generator.artifact["pipeline"] == "DDPMPipeline"

    def test_the_check_reads_what_diffusers_writes(self, tmp_path):
        index = check_diffusers(made.diffusers_folder(tmp_path / "pipeline"))
        assert index["unet"] == ["diffusers", "UNet2DModel"]
        with pytest.raises(DataError, match="model_index"):
            check_diffusers(tmp_path / "pipeline" / "scheduler")

    def test_without_safetensors(self, tmp_path):
        folder = made.diffusers_folder(tmp_path / "pipeline")
        for file in folder.rglob("*.safetensors"):
            file.unlink()
        with pytest.raises(DataError, match="safe_serialization=True"):
            Diffusers().open(folder, {}, "cpu")


class TestMonai:
    pytest.importorskip("monai", reason="the extra [monai] is not installed")

    def network(self, bundle):
        from monai.bundle import ConfigParser

        parser = ConfigParser()
        parser.read_config(str(bundle / "configs" / "inference.json"))
        network = parser.get_parsed_content("network_def").eval()
        network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
        return network

    @pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
    def test_a_generator_network(self, tmp_path, zipped):
        """Without evaluating the configuration, the network is the one that MONAI's own parser builds of it."""
        bundle = path = made.monai_bundle(tmp_path / "bundle")
        if zipped:
            path = tmp_path / "bundle.zip"
            with zipfile.ZipFile(path, "w") as archive:
                for file in bundle.rglob("*"):
                    archive.write(file, file.relative_to(tmp_path).as_posix())
        generator = Monai().open(path, {"latent": "6", "output": "-3:3"}, "cpu")
        drawn = check_batches(generator)
        with torch.no_grad():
            expected = self.network(bundle)(torch.from_numpy(noise_rows(seeds(5, 11), (6,)))).numpy()
        assert np.abs(drawn - levels(expected, -3, 3)).max() <= 0.51

    def test_the_range_comes_from_the_metadata(self, tmp_path):
        generator = Monai().open(made.monai_bundle(tmp_path / "bundle"), {"latent": "6"}, "cpu")
        assert generator.values.output == (0.0, 1.0)

    def test_a_diffusion_network_follows_monais_own_scheduler(self, tmp_path):
        """Our DDIM over the chain of the bundle's scheduler gives MONAI's trajectory from the same noise."""
        pytest.importorskip("einops", reason="the extra [monai] is not installed")
        from monai.networks.schedulers import DDIMScheduler

        bundle = made.monai_diffusion(tmp_path / "bundle")
        options = {"latent": "1x8x8", "steps": "30", "output": "-4:4", "dtype": "float32", "range": "-4:4"}
        generator = Monai().open(bundle, options, "cpu")
        drawn = generator.sample(3, seed=5).pixels
        scheduler = DDIMScheduler(num_train_timesteps=30, clip_sample=True)
        scheduler.set_timesteps(30)  # with fewer, MONAI steps to t - 30 // n, not to its own next time
        x = torch.from_numpy(noise_rows(seeds(5, 3), (1, 8, 8)))
        network = self.network(bundle)
        with torch.no_grad():
            for t in scheduler.timesteps:
                x = scheduler.step(network(x, t.expand(len(x))), t, x)[0]
        assert np.abs(drawn - x.numpy()).max() < 1e-4

    def test_what_needs_evaluating_is_refused(self, tmp_path):
        from medtrust.errors import SafetyError

        bundle = made.monai_bundle(tmp_path / "bundle")
        place = bundle / "configs" / "inference.json"
        config = json.loads(place.read_text())
        config["network_def"]["num_res_units"] = "$1 + 1"
        place.write_text(json.dumps(config))
        with pytest.raises(SafetyError, match="plain value"):
            Monai().open(bundle, {"latent": "6"}, "cpu")

    def test_weights_of_another_network(self, tmp_path):
        bundle = made.monai_bundle(tmp_path / "bundle")
        torch.save({"other": torch.zeros(1)}, bundle / "models" / "model.pt")
        with pytest.raises(DataError, match="do not fit"):
            Monai().open(bundle, {"latent": "6"}, "cpu")
