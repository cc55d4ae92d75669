"""What the specs name."""

import numpy as np
import torch

from medtrust import Caps, ConditionSpec, Estimate, ImageHeader, ImageSpec, Intensity, Interval, Result, SampleBatch
from medtrust.errors import DataError


class Gap:
    def compute(self, data):
        value = float((data.synthetic.matrix.mean(0) - data.train.matrix.mean(0)).abs().sum())
        assert len(data.train.images[0].pixels.shape) == 3
        return Result(Estimate(value, "level", "lower"), Interval(value, value, data.level, "none", len(data.train)))


class Mean:
    names = ("mean",)
    digest = "old-mean-1"

    def __init__(self, device="cpu"):
        pass

    def extract(self, images, intensity):
        return images.float().flatten(1).mean(1, keepdim=True)


class Noise:
    spec = ImageSpec(shape=(3, 24, 24), dtype="uint8", range=(0, 255), unit="level")
    conditions = ConditionSpec()
    caps = Caps()

    def open(self, path, options, device):
        return self

    def sample(self, n, *, seed, condition=None, first=0, **opts):
        draws = [np.random.default_rng((seed, first + i)).integers(0, 256, (3, 24, 24), dtype=np.uint8) for i in range(n)]
        return SampleBatch(np.array(draws, np.uint8).reshape(n, 3, 24, 24), tuple(range(first, first + n)))


def gradient(score, images):
    x = images.detach().requires_grad_()
    return torch.autograd.grad(score(x).sum(), x)[0].abs()


class Raw:
    def scan(self, path, limits):
        if path.stat().st_size != 16:
            raise DataError(f"{path} has not 16 bytes")
        return [ImageHeader(shape=(1, 4, 4), dtype="uint8", intensity=Intensity(0.0, 255.0, "level"))]

    def read(self, path, header, limits):
        return np.frombuffer(path.read_bytes(), np.uint8).reshape(header.shape).copy()


def render(report, folder):
    return "\n".join(row["id"] for row in report["results"]).encode()
