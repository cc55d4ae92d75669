"""What the specs name."""

import atexit
import os
import random
import time

import numpy as np
import torch

from medtrust import Estimate, Result

ONE = Result(Estimate(1.0))


class Prints:
    def compute(self, data):
        print("this belongs to nobody")
        return ONE


class Mutates:
    def compute(self, data):
        for part in (data.train, data.synthetic):
            part.features.values.fill_(7)
            for record in part.images:
                record.pixels[...] = 0
        return ONE


class Patches:
    def compute(self, data):
        torch.manual_seed = lambda seed: None
        torch.randn = lambda *shape, **options: torch.zeros(*shape)
        np.random.default_rng = lambda seed=None: None
        random.random = lambda: 0.5
        return ONE


class Disturbs:
    def compute(self, data):
        torch.manual_seed(1)
        np.random.seed(1)
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        os.environ["OMP_NUM_THREADS"] = "77"
        os.chdir("/")
        return ONE


class Hangs:
    def compute(self, data):
        time.sleep(3600)
        return ONE


class Stubborn:
    def compute(self, data):
        while True:
            try:
                time.sleep(3600)
            except Exception:
                continue


class Exits:
    def compute(self, data):
        raise SystemExit(0)


class Escapes:
    def compute(self, data):
        raise BaseException("no Exception at all")


class LeavesATrap:
    def compute(self, data):
        atexit.register(self.trap)
        return ONE

    def trap(self):
        raise SystemExit(9)
