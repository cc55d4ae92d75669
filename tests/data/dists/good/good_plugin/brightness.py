"""What the specs of plugin.py name; imported when first used."""

from medtrust import Estimate, Result


class Brightness:
    def compute(self, data):
        gap = data.synthetic.matrix.mean() - data.train.matrix.mean()
        return Result(Estimate(float(gap)))


class Mean:
    names = ("mean",)
    digest = "mean-2"

    def extract(self, images, intensity):
        return images.float().flatten(1).mean(1, keepdim=True)
