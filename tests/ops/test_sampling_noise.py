"""Philox noise: known answers, the float64 twin, one sequence however it is cut, and the shape of the distribution."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats as distributions

from medtrust import ops
from medtrust.errors import DataError
from medtrust.ops import _native
from medtrust.ops import reference_sampling as twin

CPU = torch.device("cpu")
needs_extension = pytest.mark.skipif(_native.extension is None, reason=f"no compiled kernels: {_native.absence}")

# counter, key, answer: the philox4x32 10 lines of kat_vectors in the Random123 distribution
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def numbers(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter, key, answer):
    """The twin meets the published answers; every kernel is compared with the twin."""
    k0, k1 = numbers(key)
    assert twin.philox(torch.tensor(numbers(counter)), (k0, k1)).tolist() == numbers(answer)


def test_layout():
    """Element e is word e % 4 of counter (e / 4, step) under the key seed, low halves first."""
    seed, step, block = 0x299F31D0A4093822, 0x0370734413198A2E, 0x05A308D3243F6A88
    expected = twin.philox(torch.tensor([0x243F6A88, 0x05A308D3, 0x13198A2E, 0x03707344]), (0xA4093822, 0x299F31D0))
    words = torch.ops.medtrust.philox([1, 4], 0, seed, step, 4 * block, CPU)
    assert [int(w) % 2**32 for w in words[0]] == expected.tolist()


PLACES = [(1, (1,), 0), (7, (3,), 1), (5, (4, 3, 7), 2), (2**63 - 1, (1, 65, 67), 5), (12345678901234, (2049,), 2**40)]


@pytest.mark.parametrize(("seed", "sample", "first"), PLACES)
@pytest.mark.parametrize("count", [1, 2, 9])
def test_kernel_equals_twin(seed, sample, first, count):
    """Words and uniforms equal the twin's exactly, normals to 6 units in the last place, wherever they start."""
    shape = (count, *sample)
    size, offset = int(np.prod(shape)), first * int(np.prod(sample))
    words = torch.ops.medtrust.philox(shape, 0, seed, 3, offset, CPU).flatten().long() & 0xFFFFFFFF
    assert torch.equal(words, twin.words(size, seed, 3, offset, CPU))
    uniform = ops.philox_uniform(shape, seed, 3, first=first)
    assert torch.equal(uniform.double().flatten(), twin.uniforms(size, seed, 3, offset, CPU))
    normal = ops.philox_normal(shape, seed, 3, first=first)
    exact = twin.normals(size, seed, 3, offset, CPU).reshape(shape)
    assert normal.dtype == torch.float32
    torch.testing.assert_close(normal.double(), exact, atol=0, rtol=6 * 2.0**-23)


def test_extreme_words():
    """The largest and the smallest radius come out with full relative precision."""
    z = ops.philox_normal((1 << 22,), 99)
    exact = twin.normals(1 << 22, 99, 0, 0, CPU)
    far = exact.abs() > 4.5
    near = exact.abs() < 1e-5
    assert int(far.sum()) > 5
    assert int(near.sum()) > 5
    gap = (z.double() - exact).abs() / exact.abs()
    assert float(gap[far | near].max()) < 6 * 2.0**-23


@pytest.mark.parametrize("draw", [ops.philox_normal, ops.philox_uniform, ops.truncated_normal])
@pytest.mark.parametrize("sample", [(1,), (3,), (4,), (5, 7), (1, 33, 31)])
def test_batch_split_changes_no_bit(draw, sample):
    """Sample i is the same in a batch of its own, and another seed or step gives another one."""
    whole = draw((11, *sample), 5, 2)
    cut = torch.cat([draw((n, *sample), 5, 2, first=first) for first, n in ((0, 1), (1, 6), (7, 0), (7, 4))])
    assert torch.equal(whole, cut)
    assert not torch.equal(whole, draw((11, *sample), 6, 2))
    assert not torch.equal(whole, draw((11, *sample), 5, 3))


def test_threads_change_no_bit():
    """One thread and two give the same bits, for noise, latents and steps."""
    schedule = ops.schedule("dpmpp2m_sde", 4)

    def everything() -> list[torch.Tensor]:
        x = ops.philox_normal((3, 1, 181, 199), 8)
        mu, logvar = ops.philox_uniform(x.shape, 1), ops.philox_normal(x.shape, 2)
        latent = ops.reparameterise(mu, logvar, 4)
        step = ops.diffusion_step("dpmpp2m_sde", x, mu, schedule=schedule, step=1, memory=logvar, seed=3)
        return [x, latent, *step]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = everything()
        torch.set_num_threads(2)
        two = everything()
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


PRINT_DIGESTS = """
import hashlib, sys
import numpy as np
from medtrust.ops._native import extension as lib

def address(a): return 0 if a is None else a.ctypes.data
def show(a): print(hashlib.sha256(a.tobytes()).hexdigest())

n, rng = 14271, np.random.default_rng(1)  # no multiple of any vector
for kind in (0, 1, 2):
    for offset in (0, 7):
        drawn = np.zeros(n, np.float32)
        lib.philox_cpu(kind, (8, 1, offset), n, address(drawn), 2)
        show(drawn)
x, memory, wide = (rng.standard_normal(n).astype(np.float32) for _ in range(3))
out = np.zeros(n, np.float32)
lib.reparameterise_cpu(address(x), address(40 * wide), (4, 1, 5), n, address(out), 2)
show(out)
table = np.array([[1.7, -1.3, 0.4, 0.8, -0.3, 0.2, 1.1, 0.7], [0.9, -0.2, 0.3, 0.5, 0, 0, 1.3, 0.9]], np.float32)
brain = [(rng.standard_normal(n).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) for _ in range(2)]
outputs = [(memory, wide), (x.astype(np.float16), wide.astype(np.float16)), brain]
for half, (conditional, unconditional) in enumerate(outputs):
    for row in (0, 1):
        for keep, quantise, guide in ((0, 0, None), (1, 0, unconditional), (2, 1, unconditional)):
            following, kept = np.zeros(n, np.uint8 if quantise else np.float32), np.zeros(n, np.float32)
            index, bad, told, again = np.array([row]), np.zeros(1, np.int32), *np.zeros((2, n), np.float32)
            buffers = [x, conditional, guide, memory, table, index, following, kept, bad]
            buffers += [None, None] if quantise else [told, again]
            clamp = (-np.inf, np.inf) if keep == 1 else (-1.1, 1.2)
            numbers = [3.5 if guide is not None else 1.0, *clamp, -1.5, 91.3, 0.37]
            lib.sampler_step_cpu([n, half, 2, keep, quantise], numbers, 9, 3, [address(a) for a in buffers], 2)
            show(following)
            show(kept)
            show(told)
            assert quantise or (told == following * np.float32(0.37)).all() and (told == again).all()
assert "torch" not in sys.modules, "the extension must be of use where torch is not installed"
"""


@needs_extension
def test_instruction_sets_give_the_same_bits():
    """Scalar, AVX2 and AVX-512 kernels write the same bytes, into plain numpy arrays, without torch."""
    found = {}
    for choice in ("scalar", "avx2", "avx512"):
        done = subprocess.run(
            [sys.executable, "-c", PRINT_DIGESTS],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "MEDTRUST_CPU": choice},
        )
        if "has only" in done.stderr:
            continue
        assert done.returncode == 0, done.stderr
        found[choice] = done.stdout.split()
    assert len(found["scalar"]) == 61
    assert all(digests == found["scalar"] for digests in found.values())
    if len(found) == 1:
        pytest.skip("this processor has the scalar kernels only")


def test_normals_are_normal():
    """Moments, Kolmogorov-Smirnov, tails and pairwise correlations fit the standard normal."""
    n = 1 << 21
    z = ops.philox_normal((n,), 20240607).double().numpy()
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - mean) < 4.5 * np.sqrt(variance / n)
    assert distributions.kstest(z, "norm").pvalue > 1e-4
    for bound in (1, 2, 3, 4):
        expected = 2 * distributions.norm.sf(bound)
        assert abs((np.abs(z) > bound).mean() - expected) < 4.5 * np.sqrt(expected / n)
    assert np.abs(z).max() < 6.8
    for lag in (1, 2, 3, 4, 16):
        assert abs((z[lag:] * z[:-lag]).mean()) < 4.5 / np.sqrt(n)
        assert abs((z[lag:] ** 2 * z[:-lag] ** 2).mean() - 1) < 4.5 * np.sqrt(8 / n)


def test_steps_and_seeds_are_independent():
    """Neighbouring seeds, steps and samples do not correlate."""
    n = 1 << 19
    base = ops.philox_normal((n,), 1, 1).double()
    others = [ops.philox_normal((n,), seed, step).double() for seed, step in ((2, 1), (1, 2), (0, 0), (1 + 2**32, 1))]
    for other in [*others, ops.philox_normal((n,), 1, 1, first=n).double()]:
        assert abs(float((base * other).mean())) < 4.5 / n**0.5


def test_uniforms_are_uniform():
    """Uniforms fill [0, 1) evenly."""
    u = ops.philox_uniform((1 << 20,), 5).double().numpy()
    assert 0 <= u.min() < 1e-5
    assert 1 - 1e-5 < u.max() < 1
    counts = np.bincount((u * 256).astype(int), minlength=256)
    assert distributions.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("bound", [0.3, 1.0, 2.0, 6.0])
def test_truncated_normals(bound):
    """Truncated normals follow their distribution and never leave the bounds."""
    z = ops.truncated_normal((1 << 18,), 77, bound=bound).double().numpy()
    assert np.abs(z).max() <= bound
    assert distributions.kstest(z, distributions.truncnorm(-bound, bound).cdf).pvalue > 1e-4


def test_reparameterise_equals_its_definition():
    """mu + exp(logvar / 2) z to float32 accuracy, from tiny to huge variances, for strided input too."""
    mu = ops.philox_normal((5, 3, 11), 1).transpose(1, 2)
    logvar = 60 * (ops.philox_uniform((5, 3, 11), 2) - 0.5).transpose(1, 2)
    assert not mu.is_contiguous()
    got = ops.reparameterise(mu, logvar, 3, 4, first=6)
    z = ops.philox_normal(mu.shape, 3, 4, first=6).double()
    spread = torch.exp(logvar.double() / 2) * z
    bound = 4 * 2.0**-23 * torch.maximum(spread.abs(), (mu + spread).abs()) + 1e-9
    assert bool(((got.double() - (mu + spread)).abs() < bound).all())


def test_reparameterise_at_the_ends():
    """Variances beyond float32 become infinite or vanish, and a NaN stays one."""
    logvar = torch.tensor([[-500.0, -180.0, 180.0, float("nan"), -float("inf"), 0.0]])
    got = ops.reparameterise(torch.zeros(1, 6), logvar, 1)[0]
    z = ops.philox_normal((1, 6), 1)[0]
    assert got[0] == 0
    assert got[4] == 0
    assert abs(got[1] - torch.exp(logvar[0, 1] / 2) * z[1]) < 1e-44
    assert got[2].isinf()
    assert got[3].isnan()
    torch.testing.assert_close(got[5], z[5])


def test_reparameterise_gradient():
    """The gradient is that of the definition with the noise held fixed."""
    mu, logvar = ops.philox_normal((4, 7), 1).requires_grad_(), ops.philox_normal((4, 7), 2).requires_grad_()
    weights = ops.philox_normal((4, 7), 3)
    (ops.reparameterise(mu, logvar, 9, 1, first=2) * weights).sum().backward()
    z = ops.philox_normal((4, 7), 9, 1, first=2)
    torch.testing.assert_close(mu.grad, weights)
    torch.testing.assert_close(logvar.grad, weights * 0.5 * torch.exp(logvar.detach() / 2) * z)


def test_empty_batches():
    """An empty batch gives empty noise and empty latents."""
    for draw in (ops.philox_normal, ops.philox_uniform, ops.truncated_normal):
        assert draw((0, 3, 4), 1).shape == (0, 3, 4)
        assert draw((3, 0), 1).shape == (3, 0)
    assert ops.reparameterise(torch.zeros(0, 4), torch.zeros(0, 4), 1).shape == (0, 4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ops.philox_normal((2,), -1), "seed is -1"),
        (lambda: ops.philox_normal((2,), 2**63), "seed is"),
        (lambda: ops.philox_normal((2,), 0.5), "seed is 0.5; give a whole number"),
        (lambda: ops.philox_normal((2,), 1, -3), "step is -3"),
        (lambda: ops.philox_normal((), 1), "shape is"),
        (lambda: ops.philox_normal((2, -1), 1), "shape is"),
        (lambda: ops.philox_normal((2, 4), 1, first=2**61), "past the end"),
        (lambda: ops.philox_normal((2,), 1, device="meta"), "no kernel for device meta"),
        (lambda: ops.truncated_normal((2,), 1, bound=0), "bound is 0"),
        (lambda: ops.reparameterise(torch.zeros(2, 3), torch.zeros(3, 2), 1), "same shape"),
        (lambda: ops.reparameterise(torch.zeros(2).double(), torch.zeros(2), 1), "mu must be"),
    ],
)
def test_refusals(call, words):
    """What cannot be drawn is refused with a sentence that says what to do."""
    with pytest.raises(DataError, match=words):
        call()


def test_registered_ops_are_sound():
    """torch's own checks of schema, fake tensor and autograd pass."""
    for kind in (0, 1, 2):
        torch.library.opcheck(torch.ops.medtrust.philox, ([2, 5], kind, 7, 1, 3, CPU))
    mu, logvar = torch.zeros(2, 5, requires_grad=True), torch.zeros(2, 5, requires_grad=True)
    torch.library.opcheck(torch.ops.medtrust.reparameterise, (mu, logvar, 7, 1, 3))


@needs_extension
def test_kernels_need_no_torch():
    """The extension fills plain numpy arrays where torch was never imported."""
    code = (
        "import sys; import numpy as np; from medtrust.ops._native import extension as lib\n"
        "z = np.full((3, 5), np.nan, np.float32); lib.philox_cpu(2, (7, 1, 10), z.size, z.ctypes.data, 2)\n"
        "assert 'torch' not in sys.modules; print(z.tobytes().hex())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == ops.philox_normal((3, 5), 7, 1, first=2).numpy().tobytes().hex(), done.stderr


def test_twin_serves_without_the_extension(monkeypatch):
    """Without the extension the values stay, and one warning says what is slower and why."""
    shape = (3, 5, 7)
    expected = [draw(shape, 4, 1, first=2) for draw in (ops.philox_normal, ops.philox_uniform, ops.truncated_normal)]
    expected.append(ops.reparameterise(expected[0], expected[1], 6))
    monkeypatch.setattr(_native, "extension", None)
    monkeypatch.setattr(_native, "absence", "it was not built")
    monkeypatch.setattr(_native, "_warned", set())
    with pytest.warns(RuntimeWarning, match="torch twin.*not built"):
        got = [draw(shape, 4, 1, first=2) for draw in (ops.philox_normal, ops.philox_uniform, ops.truncated_normal)]
    with pytest.warns(RuntimeWarning, match="ops.reparameterise runs on its float64 torch twin"):
        got.append(ops.reparameterise(expected[0], expected[1], 6))
    torch.testing.assert_close(got[0], expected[0], atol=0, rtol=6 * 2.0**-23)
    assert torch.equal(got[1], expected[1])
    assert torch.equal(got[2], expected[2])
    torch.testing.assert_close(got[3], expected[3], atol=1e-6, rtol=1e-6)
