"""Rules: a planted one is found and named, nothing is found where there is nothing, bounds hold on unseen patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from explain_sets import trio

from medtrust import FeatureMatrix, Insufficient
from medtrust_explain.rules import Literal, Rule, Rules, learn_rules

NAMES = ("firstorder.mean", "glcm.contrast", "glcm.energy", "edges.density", "colour.cb")


def featured(seed, shift=0.0, names=NAMES, n=240):
    """A trio with features: per patient a level of its own, and glcm.contrast of synthetic moved."""
    data = trio(seed, n)
    rng = np.random.default_rng(seed)
    sets = {}
    for name in ("train", "synthetic", "holdout"):
        one = getattr(data, name)
        own = rng.normal(size=(n, 5)).repeat(2, 0)[:n] if name != "synthetic" else rng.normal(size=(n, 5))
        values = 0.7 * own + 0.7 * rng.normal(size=(n, 5))
        if name == "synthetic":
            values[:, 1] += shift
        matrix = FeatureMatrix(torch.tensor(values).float(), one.patients, one.digests, "radiomics", "d", names)
        sets[name] = replace(one, features=matrix)
    return replace(data, space="radiomics", **sets)


def test_a_planted_rule_is_named_and_its_bounds_hold():
    """Contrast moved by two standard deviations: the first rule is about contrast and nothing else of weight."""
    result = Rules().compute(featured(1, 2.0))
    assert result.interval.lo > 0.6
    assert result.null.value == 0.5
    assert "glcm.contrast >" in result.facts["rule_1"]
    assert result.evidence[0].title.startswith("If ")
    assert 0.3 < result.facts["bootstrap_stability"] <= 1
    assert 0 <= result.facts["fidelity_to_classifier"] <= 1
    assert result.selftest.status == "ok"
    again = Rules().compute(featured(1, 2.0))
    assert again.facts == result.facts


def test_no_rule_is_emitted_where_there_is_nothing():
    """Forty sets without a difference give a rule at most twice: the promised rate is 1 in 100."""
    emitted = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(300, 6))
        rules, _ = learn_rules(x, np.arange(300) < 150, [str(i) for i in range(300)], seed)
        emitted += bool(rules.rules)
    assert emitted <= 2


def test_rules_stay_short_and_their_bounds_hold_the_truth():
    """Two features matter: at most five rules of three literals; precision on fresh data lies within the bounds."""
    rng = np.random.default_rng(2)

    def draw(n):
        x = rng.normal(size=(n, 6))
        y = np.arange(n) < n // 2
        x[y, 2] += 1.5
        x[y, 4] -= 1.0
        return x, y

    x, y = draw(800)
    rules, judged = learn_rules(x, y, [str(i) for i in range(800)], 3)
    assert 1 <= len(rules.rules) <= 5
    assert len(judged) == 400
    fresh, truth = draw(20000)
    for rule, (p, lo, hi) in zip(rules.rules, rules.precision, strict=True):
        assert 1 <= len(rule.literals) <= 3
        assert lo <= p <= hi
        assert lo - 0.02 <= truth[rule.covers(fresh)].mean() <= hi + 0.02


def test_a_rule_reads_as_a_sentence():
    """Comparisons joined by and."""
    rule = Rule((Literal(0, True, 0.5), Literal(1, False, -2.0)))
    assert rule.words(("a.b", "c"), " SD") == "a.b > 0.5 SD and c ≤ -2 SD"
    assert rule.covers(np.array([[1.0, -3.0], [1.0, 0.0], [0.5, -3.0]])).tolist() == [True, False, False]


def test_features_without_names_are_refused():
    """Nobody can read a rule about column 17."""
    with pytest.raises(Insufficient, match="names"):
        Rules().compute(featured(1, names=()))
