"""Explanations are marked before they are believed, and a plugin's explainer cannot harm the audit."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from medtrust import Estimate, Evidence, ExplainerSpec, Insufficient, MetricSpec, Picture, Result
from medtrust.engine import run_plan
from medtrust.evidence import illustrate
from medtrust.explaining import attribute, explain, run_explainers, seen
from medtrust.images import cividis, heat_map, strip
from medtrust.planning import make_plan
from medtrust.progress import QuietProgress
from medtrust.pseudonyms import Pseudonyms
from medtrust.stats import attribution as tests
from medtrust.types import Attribution, ImageHeader, ImageRecord, Intensity, Probe, Score, Target

SIDE = 16


def spot(images):
    """A score that looks at one corner."""
    return images[:, :, 2:6, 3:7].mean((1, 2, 3))


def finds(score, images):
    """Gradient times input: right for a linear score."""
    x = images.clone().requires_grad_()
    return (torch.autograd.grad(score(x).sum(), x)[0] * images).sum(1)


def dreams(score, images):
    """The same map whatever the score: an edge detector."""
    return tests.edge_map(images)


def target(probe=True, **changes):
    rng = torch.Generator().manual_seed(1)
    images = 0.3 * torch.rand(24, 1, SIDE, SIDE, generator=rng)
    images[:, :, 2:6, 3:7] += 0.5  # what the score looks at is bright in all
    masks = torch.zeros(24, SIDE, SIDE, dtype=torch.bool)
    masks[:, 2:6, 3:7] = True

    def other(seed):
        weights = torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed % 2**63))
        return Score(lambda x: (weights * x).sum((1, 2, 3)), baselines=images[:4])

    found = {
        "score": Score(spot, baselines=torch.zeros(4, 1, SIDE, SIDE)),
        "images": images,
        "sources": tuple(("synthetic", i) for i in range(24)),
        "question": "what is bright in the corner",
        "randomised": other,
        "probe": Probe(Score(spot), images, masks, "corner") if probe else None,
    }
    return Target(**{**found, **changes})


def test_an_explanation_that_finds_the_corner_is_believed():
    """Removal gap above its null, no likeness to random networks, the corner found better than by the baselines."""
    result = explain(finds, target(), seed=2)
    assert result.status == "ok"
    assert result.interval.lo > result.null.interval.hi
    assert result.selftest.status == "ok"
    assert result.facts["planted_average_precision"] > 0.9
    assert [item.kind for item in result.evidence] == ["heat map"] * 6 + ["mean map"]
    assert "strongest at the top" in result.evidence[0].pictures[1].alt


def test_an_edge_detector_is_not_believed_and_shown_as_such():
    """It ignores the network, so random networks give the same map, and the planted corner is missed."""
    result = explain(dreams, target(), seed=2)
    assert result.status == "insufficient"
    assert result.reason.startswith("INCONCLUSIVE")
    assert "random parameters" in result.reason
    assert "not found better" in result.reason
    assert result.selftest.status == "failed"
    assert result.evidence[0].pictures[1].alt.startswith("failed its tests")


def test_maps_that_do_not_add_up_are_not_believed():
    """More than a tenth of the score left over is too much."""
    for residual, status in ((0.09, "ok"), (0.11, "insufficient")):
        result = explain(lambda s, x, r=residual: Attribution(finds(s, x), r), target(), seed=2)
        assert result.status == status, result.reason
    assert "11% of the score unexplained" in result.reason


def test_without_probe_and_random_networks_nothing_is_certified():
    """What was not tested is said to be untested."""
    result = explain(finds, target(probe=False, randomised=None), seed=2)
    assert result.selftest.status == "not_run"
    with pytest.raises(Insufficient, match="8 images"):
        explain(finds, target(images=torch.rand(7, 1, SIDE, SIDE)))
    with pytest.raises(Insufficient, match="chance"):
        explain(finds, target(nothing="no better than chance"))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda s, x: x[:, :, ::2], ValueError),
        (lambda s, x: x[:, 0] * float("nan"), ValueError),
        (lambda s, x: [1], TypeError),
    ],
)
def test_answers_that_are_no_maps_are_refused(answer, error):
    """Another size, numbers that are not finite, no tensor."""
    with pytest.raises(error):
        attribute(answer, Score(spot), torch.rand(3, 1, 8, 8))


def test_an_explainer_gets_its_own_images():
    """One that writes into them harms nobody."""
    images = torch.rand(3, 1, 8, 8)
    before = images.clone()
    attribute(lambda s, x: x.zero_()[:, 0], Score(spot), images)
    assert torch.equal(images, before)


def test_imputation_is_the_neighbours_mean_and_keeps_what_stays():
    """A linear ramp is restored from half of its pixels up to the noise, as it solves the equations."""
    ramp = torch.arange(SIDE).float().repeat(SIDE, 1)[None] / SIDE
    gone = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(0)) < 0.5
    gone[:, 0] = gone[:, -1] = gone[0] = gone[-1] = False
    filled = tests.impute(ramp, gone, np.random.default_rng(0))
    assert torch.equal(filled[:, ~gone], ramp[:, ~gone])
    assert (filled - ramp).abs().max() < 0.06


def test_imputation_is_that_of_the_peer():
    """pytorch-grad-cam's NoisyLinearImputer without noise; it works on images with a border that stays."""
    road = pytest.importorskip("pytorch_grad_cam.metrics.road", reason="the peer pytorch-grad-cam is not installed")
    image, gone = torch.rand(2, 11, 13), torch.rand(11, 13) < 0.4
    gone[:, 0] = gone[:, -1] = gone[0] = gone[-1] = False
    expected = road.NoisyLinearImputer(noise=0.0)(image.clone(), (~gone).float())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tests, "_NOISE", 0.0)
        found = tests.impute(image, gone, np.random.default_rng(0))
    assert torch.allclose(found, expected.to(found), atol=1e-5)


def test_localisation_measures_are_those_of_scikit_learn():
    """Average precision with ties, share of mass, pointing game."""
    from sklearn.metrics import average_precision_score

    maps = torch.randint(0, 6, (7, 9, 5)).float()
    masks = torch.rand(7, 9, 5) < 0.3
    masks[:, 0, 0] = True
    expected = [average_precision_score(m.flatten(), h.flatten()) for m, h in zip(masks, maps, strict=True)]
    assert np.allclose(tests.average_precision(maps, masks), expected, atol=1e-12)
    assert tests.mass_inside(masks.float(), masks).tolist() == [1.0] * 7
    assert np.allclose(tests.mass_inside(torch.zeros(7, 9, 5), masks), masks.float().mean((1, 2)))
    assert tests.pointing_hit(masks.float(), masks).tolist() == [1.0] * 7


class _Offers:
    """A metric that offers a target."""

    def compute(self, data):
        return Result(Estimate(1.0), target=target())


def _leaves(score, images):
    raise SystemExit("enough")


class _Host:
    """Two explainers, one of which exits."""

    def __init__(self):
        from medtrust.host.contributions import contribute
        from medtrust.host.isolation import Source

        source = Source("strange", "strange-dist", "1")
        specs = [ExplainerSpec(name=n, version="1", factory=f"x:{n}") for n in ("leaves", "works")]
        self.found = [contribute("explainer", spec, source) for spec in specs]
        spec = MetricSpec(name="offers", version="1", factory="x:o", pillar="explanation", needs=("train", "synthetic"))
        self.metric = contribute("metric", spec, source)

    def contributions(self, kind):
        return {"metric": [self.metric], "explainer": self.found}[kind]

    def find(self, kind, name):
        return next(c for c in self.contributions(kind) if c.spec.name == name)

    def load(self, c):
        return {"works": finds, "leaves": lambda s, x: exec("raise SystemExit('enough')"), "offers": _Offers}[
            c.spec.name
        ]

    def fire(self, *_a, **_k):
        pass

    def note(self, *_a, **_k):
        pass


def test_an_audit_explains_what_metrics_offer_and_survives_an_explainer_that_exits():
    """One row per explainer; the failure names the plugin; names in --metrics choose explainers too."""
    host = _Host()
    assert [c.spec.name for c in make_plan(host, metrics="all", features=[], seed=0, level=0.95).explainers] == [
        "leaves",
        "works",
    ]
    plan = make_plan(host, metrics=["offers", "works"], features=[], seed=0, level=0.95)
    assert [c.spec.name for c in plan.explainers] == ["works"]
    from medtrust.types import SetData

    sets = {name: SetData(name, [None] * 4, tuple("abcd"), tuple("abcd")) for name in ("train", "synthetic")}
    outcome = run_plan(plan, host, sets, {}, Intensity(0, 1, "a.u."), QuietProgress())
    rows, failures, seconds = run_explainers(
        host.found, outcome.results, host, level=0.95, seed=0, progress=QuietProgress()
    )
    found = {r.id: r.status for r in rows}
    assert found == {"explanation.leaves[offers]": "error", "explanation.works[offers]": "ok"}
    assert failures[0].plugin == "strange"
    assert "enough" in failures[0].error
    assert set(seconds) == {r.id for r in rows}


def test_heat_maps_obey_the_evidence_policy(tmp_path):
    """none draws nothing; blur blurs image and map; full shows both; the same input gives the same bytes."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (1, 32, 32), dtype=np.uint8)
    header = ImageHeader((1, 32, 32), "uint8")
    record = ImageRecord(pixels, "a.png", "p", header, "d")
    heat = rng.random((32, 32))
    picture = Picture("where", "alt", (("train", 0),), heat=heat)
    result = Result(Estimate(1.0), evidence=(Evidence("heat map", "t", 1, {}, (picture,)),))

    def drawn(policy):
        folder = tmp_path / policy
        level = Intensity(0, 255, "level")
        (found,), _ = illustrate([result], {"train": [record]}, level, policy, folder, Pseudonyms())
        (shown,) = found.evidence[0].pictures
        assert shown.contains_real
        assert shown.heat is None
        return (folder / shown.path).read_bytes() if shown.path else None

    none, blur, full = (drawn(policy) for policy in ("none", "blur", "full"))
    assert none is None
    assert full == drawn("full")
    grey = [np.asarray(Image.open(io.BytesIO(x)).convert("L"), float)[:, :160] for x in (blur, full)]
    rough = [np.abs(np.diff(g, axis=1)).mean() for g in grey]
    assert rough[0] < rough[1] / 3


def test_the_colour_scale_is_cividis_and_even_in_lightness():
    """Within 6.5 levels of matplotlib's table; lightness rises by even steps."""
    at = np.linspace(0, 1, 256)
    found = cividis(at).astype(float)
    luma = found @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luma) >= -0.5).all()
    assert cividis(np.array([-1.0, 2.0])).tolist() == cividis(np.array([0.0, 1.0])).tolist()
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib, which the peers bring, is not installed")
    assert np.abs(found - 255 * matplotlib.colormaps["cividis"](at)[:, :3]).max() < 6.5


def test_pictures_have_the_size_that_was_asked_for():
    """A map alone keeps its shape; the bar stands beside it; a strip is as high as asked."""
    drawn = Image.open(io.BytesIO(heat_map(None, np.eye(4, 8), 1.0, 64)))
    assert drawn.height == 32
    assert drawn.width > 64
    assert Image.open(io.BytesIO(strip(np.zeros((3, 1, 8, 8)), 40))).size == (3 * 40 + 2 * 4, 40)


def test_alt_texts_say_where():
    """The place of the maximum, and how concentrated the map is."""
    heat = torch.zeros(9, 9)
    assert seen(heat) == "the map is empty"
    heat[8, 8] = 1
    assert seen(heat) == "strongest at the bottom right, half of it on 1% of the image"
