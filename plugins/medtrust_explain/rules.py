"""Rules that tell synthetic from real: at most five, of at most three comparisons of features that have names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medtrust import Estimate, Evidence, Insufficient, MetricInput, Null, Picture, Resolution, Result, SelfTest, stats
from medtrust.seeding import derive_seed
from medtrust_explain.comparison import Sides, sides
from medtrust_explain.network import predict, train_all
from medtrust_explain.pixels import prepared

__all__ = ["Literal", "Rule", "Rules", "RuleSet", "learn_rules"]

Floats = npt.NDArray[np.float64]
MOST_RULES, MOST_LITERALS = 5, 3
_MOST = 1000  # images per side
_TREES, _BOOTSTRAPS = 40, 10
_FALSE = 0.01  # chance that any rule is emitted where there is nothing to find
_SHIFT = 2.0  # standard deviations by which the self-test moves one feature
_SIDE = 32  # pixels, for the classifier that the rules are compared with


@dataclass(frozen=True, slots=True, order=True)
class Literal:
    """One comparison: feature number, above (or at most), threshold."""

    feature: int
    above: bool
    cut: float


@dataclass(frozen=True, slots=True)
class Rule:
    """All of its literals hold: the image is called synthetic."""

    literals: tuple[Literal, ...]

    def covers(self, x: Floats) -> npt.NDArray[np.bool_]:
        """Which rows of x [n, d] the rule speaks of, [n]."""
        held = np.ones(len(x), dtype=bool)
        for literal in self.literals:
            held &= (x[:, literal.feature] > literal.cut) == literal.above
        return held

    def words(self, names: Sequence[str], unit: str) -> str:
        """The rule as a sentence's beginning."""
        parts = [f"{names[t.feature]} {'>' if t.above else '≤'} {t.cut:.3g}{unit}" for t in self.literals]
        return " and ".join(parts)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules that hold on images they were not learned from.

    Args:
        rules: At most five, the one that covers most first.
        precision: Of each rule, at equal numbers of either side: estimate, lower and upper bound.
        coverage: Share of the first side that each rule speaks of.
    """

    rules: tuple[Rule, ...]
    precision: tuple[tuple[float, float, float], ...]
    coverage: tuple[float, ...]

    def predicts(self, x: Floats) -> npt.NDArray[np.bool_]:
        """Whether any rule speaks, [n]."""
        said = np.zeros(len(x), dtype=bool)
        for rule in self.rules:
            said |= rule.covers(x)
        return said


def learn_rules(x: Floats, y: npt.NDArray[np.bool_], patients: Sequence[str], seed: int) -> tuple[RuleSet, Any]:
    """Learn rules on half of the patients, keep those that hold on the other half.

    Shallow trees on random features give candidate rules; a greedy cover chooses among them; a rule is kept when the
    lower bound of its precision, over all rules that were tried there, exceeds one half.

    Args:
        x: [n, d] features.
        y: Which rows belong to the first side, [n].
        patients: Patient of each row.
        seed: Seed of split and trees.

    Returns:
        The rules, and the rows of the half they were judged on.
    """
    judge = _half(y, patients, derive_seed(seed, "half"))
    chosen = _cover(x[~judge], y[~judge], derive_seed(seed, "trees"))
    all_ours, all_theirs = (len({patients[i] for i in np.flatnonzero(judge & side)}) for side in (y, ~y))
    found = []
    for rule in chosen:
        covered = rule.covers(x) & judge
        ours = len({patients[i] for i in np.flatnonzero(covered & y)})
        theirs = len({patients[i] for i in np.flatnonzero(covered & ~y)})
        if ours + theirs == 0:
            continue
        lo, hi = stats.clopper_pearson(ours, ours + theirs, 1 - 2 * _FALSE / MOST_RULES)
        # as if both sides had equally many patients
        point, lower, upper = (
            p / all_ours / (p / all_ours + (1 - p) / all_theirs) for p in (ours / (ours + theirs), lo, hi)
        )
        if lower > 0.5:
            share = float(covered[judge & y].mean())
            found.append((share, rule, (point, lower, upper)))
    found.sort(key=lambda entry: -entry[0])
    kept = RuleSet(tuple(f[1] for f in found), tuple(f[2] for f in found), tuple(f[0] for f in found))
    return kept, np.flatnonzero(judge)


def _half(y: npt.NDArray[np.bool_], patients: Sequence[str], seed: int) -> npt.NDArray[np.bool_]:
    judge = np.zeros(len(y), dtype=bool)
    for side in (True, False):
        rows = np.flatnonzero(y == side)
        _, second = stats.split_patients([patients[i] for i in rows], len(rows), derive_seed(seed, int(side)))
        judge[rows[second.numpy()]] = True
    return judge


def _cover(x: Floats, y: npt.NDArray[np.bool_], seed: int) -> list[Rule]:
    """Candidates from trees, then greedily the one that adds most of the first side net of the other."""
    candidates = _candidates(x, y, seed)
    held = [rule.covers(x) for rule in candidates]
    weight = np.where(y, 1 / max(int(y.sum()), 1), -1 / max(int((~y).sum()), 1))
    left = np.ones(len(y), dtype=bool)
    chosen: list[Rule] = []
    while len(chosen) < MOST_RULES and candidates:
        gains = np.array([float(weight[h & left].sum()) for h in held]) - 0.002 * np.array(
            [len(rule.literals) for rule in candidates]
        )  # of two rules that say the same, the shorter
        best = int(np.argmax(gains))
        if gains[best] < 0.03:
            break
        chosen.append(candidates[best])
        left &= ~held[best]
    return chosen


def _candidates(x: Floats, y: npt.NDArray[np.bool_], seed: int) -> list[Rule]:
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(seed)
    found: dict[Rule, None] = {}
    width = max(1, min(x.shape[1], 8))
    for i in range(_TREES):
        columns = np.sort(rng.choice(x.shape[1], width, replace=False)) if i else np.arange(x.shape[1])
        tree = DecisionTreeClassifier(
            max_depth=MOST_LITERALS,
            min_samples_leaf=max(5, len(x) // 40),
            class_weight="balanced",
            random_state=int(rng.integers(2**31)),
        )
        tree.fit(x[:, columns], y)
        for rule in _paths(tree.tree_, columns):
            found[rule] = None
    return list(found)


def _paths(tree: Any, columns: npt.NDArray[np.int64]) -> list[Rule]:
    """Every node that speaks for the first side, as a rule without redundant comparisons."""
    rules = []
    stack: list[tuple[int, tuple[Literal, ...]]] = [(0, ())]
    while stack:
        node, literals = stack.pop()
        share = tree.value[node][0]
        if literals and share[1] > share[0]:
            rules.append(Rule(_merged(literals)))
        if tree.children_left[node] >= 0:
            feature, cut = int(columns[tree.feature[node]]), float(tree.threshold[node])
            stack.append((int(tree.children_left[node]), (*literals, Literal(feature, False, cut))))
            stack.append((int(tree.children_right[node]), (*literals, Literal(feature, True, cut))))
    return rules


def _merged(literals: Sequence[Literal]) -> tuple[Literal, ...]:
    tight: dict[tuple[int, bool], float] = {}
    for t in literals:
        key = (t.feature, t.above)
        tight[key] = t.cut if key not in tight else (max if t.above else min)(tight[key], t.cut)
    return tuple(sorted(Literal(f, above, cut) for (f, above), cut in tight.items()))


class Rules:
    """Say in words what tells synthetic from real, if rules of named features can.

    Reference: Friedman and Popescu 2008, arXiv:0811.1679 (rules from trees); the greedy cover and the judgement on
    patients apart are ours.
    """

    def compute(self, data: MetricInput) -> Result:
        """Learn rules on at most 1000 images a side.

        Raises:
            Insufficient: The features have no names, or hold what is no number.
        """
        torch.set_num_threads(1)
        features = data.train.features
        if features is None or not features.names:
            raise Insufficient(f"rules need features that have names; those of {data.space or 'this space'} have none")
        names = features.names
        pair = sides(data, _MOST, 40)
        x, y, who = _rows(pair)
        found, judged = learn_rules(x, y, who, derive_seed(data.seed, "rules"))
        null = _rows(pair.null())
        floor, floor_judged = learn_rules(*null, derive_seed(data.seed, "null"))
        score, base = _judge(found, x, y, who, judged, data.level), _judge(floor, *null, floor_judged, data.level)
        unit = " SD" if abs(float(features.values.std(0).mean()) - 1) < 0.2 else ""
        fidelity = _fidelity(pair, data, found, x, y, judged)
        stable = _stability(x, y, who, judged, found, derive_seed(data.seed, "bootstrap"))
        facts: dict[str, Any] = {"rules": len(found.rules), "rules_real_against_real": len(floor.rules)}
        if found.rules:
            facts |= {"fidelity_to_classifier": fidelity, "bootstrap_stability": stable}
        kept = zip(found.rules, found.precision, found.coverage, strict=True)
        for i, (rule, (p, lo, hi), share) in enumerate(kept, start=1):
            words = rule.words(names, unit)
            facts[f"rule_{i}"] = f"{words}: precision {p:.2f} ({lo:.2f} to {hi:.2f}), covers {share:.0%} of synthetic"
        reach = stats.min_detectable(max(base.se, _least_se(judged, y)), data.level, base.interval.n_units - 1)
        notes = () if found.rules else ("no rule of named features tells the sets apart",)
        return Result(
            estimate=Estimate(score.auc, "balanced accuracy", "lower"),
            interval=score.interval,
            null=Null(pair.reference, base.auc, base.interval),
            resolution=Resolution(
                reach, 0.8,
                f"With {base.interval.n_units} patients on the smaller side of the judging half, rules less than "
                f"{reach:.2g} better than chance could not have been told from none.",
            ),
            selftest=_selftest(null, floor, names, derive_seed(data.seed, "plant")),
            evidence=_evidence(found, pair, x, y, judged, names, unit),
            facts=facts,
            notes=(*pair.notes, *notes),
        )  # fmt: skip


def _rows(pair: Sides) -> tuple[Floats, npt.NDArray[np.bool_], list[str]]:
    parts, who = [], []
    for number, (data, rows) in enumerate(((pair.first, pair.first_rows), (pair.second, pair.second_rows)), 1):
        part = data.matrix[torch.tensor(rows)].numpy()
        if not np.isfinite(part).all():
            raise Insufficient(f"features of {data.name} are not all finite: look for broken images")
        parts.append(part)
        who += [f"{number}:{p}" for p in pair.patients(data, rows)]
    x = np.concatenate(parts)
    return x, np.arange(len(x)) < len(parts[0]), who


def _judge(
    rules: RuleSet, x: Floats, y: npt.NDArray[np.bool_], who: Sequence[str], rows: Any, level: float
) -> stats.Discrimination:
    said = rules.predicts(x[rows]).astype(float)
    return stats.discriminate([said], [y[rows]], [[who[i] for i in rows]], level)


def _least_se(rows: Any, y: npt.NDArray[np.bool_]) -> float:
    """Standard error of a balanced accuracy of one half, for a null without rules, which does not vary."""
    n1 = int(y[rows].sum())
    return float(np.sqrt(0.25 / n1 + 0.25 / (len(rows) - n1)) / 2)


def _fidelity(
    pair: Sides, data: MetricInput, rules: RuleSet, x: Floats, y: npt.NDArray[np.bool_], judged: Any
) -> float:
    """Share of the judged images on which rules and a classifier, learned on the same other half, agree."""
    if not rules.rules:
        return 0.0
    images = torch.cat(
        [
            prepared(pair.first, pair.first_rows, data.intensity, _SIDE),
            prepared(pair.second, pair.second_rows, data.intensity, _SIDE),
        ]
    )
    learn = torch.ones(len(y), dtype=torch.bool)
    learn[torch.from_numpy(judged)] = False
    labels = torch.from_numpy(y.astype(np.float32))[learn]
    (network,) = train_all([(images[learn], labels)], None, [derive_seed(data.seed, "classifier")])
    says = predict(network, images[torch.from_numpy(judged)]).numpy() > 0
    return float((says == rules.predicts(x[judged])).mean())


def _stability(
    x: Floats, y: npt.NDArray[np.bool_], who: Sequence[str], judged: Any, rules: RuleSet, seed: int
) -> float:
    """Mean overlap (Jaccard) of the judged images that the rules and the rules of a bootstrap by patient speak of."""
    learn = np.setdiff1d(np.arange(len(y)), judged)
    said = rules.predicts(x[judged])
    if not said.any():
        return 0.0
    rng = np.random.default_rng(seed)
    owners, codes = np.unique([who[i] for i in learn], return_inverse=True)
    of_owner = [learn[codes == k] for k in range(len(owners))]
    overlaps = []
    for _ in range(_BOOTSTRAPS):
        rows = np.concatenate([of_owner[k] for k in rng.integers(0, len(owners), len(owners))])
        other = RuleSet(tuple(_cover(x[rows], y[rows], int(rng.integers(2**62)))), (), ()).predicts(x[judged])
        overlaps.append(float((said & other).sum() / max(1, (said | other).sum())))
    return float(np.mean(overlaps))


def _selftest(
    null: tuple[Floats, npt.NDArray[np.bool_], list[str]], floor: RuleSet, names: Sequence[str], seed: int
) -> SelfTest:
    """Move one feature of real images: a rule must name it; real against real must give none."""
    x, y, who = null
    at = next((i for i, name in enumerate(names) if "contrast" in name), int(np.argmax(x.std(0))))
    moved = x.copy()
    moved[y, at] += _SHIFT * x[:, at].std()
    found, _ = learn_rules(moved, y, who, seed)
    named = any(literal.feature == at for rule in found.rules for literal in rule.literals)
    if not named:
        return SelfTest("failed", f"{names[at]} of real images was moved by {_SHIFT:g} SD and no rule named it")
    if floor.rules:
        return SelfTest("failed", f"{len(floor.rules)} rules tell real from real")
    return SelfTest(
        "ok", f"{names[at]} of real images was moved by {_SHIFT:g} SD and named; real from real gave no rule"
    )


def _evidence(
    rules: RuleSet, pair: Sides, x: Floats, y: npt.NDArray[np.bool_], judged: Any, names: Sequence[str], unit: str
) -> tuple[Evidence, ...]:
    """For each rule the synthetic images of the judging half that it holds for by the widest margin."""
    shown = []
    for rank, (rule, precision, share) in enumerate(
        zip(rules.rules, rules.precision, rules.coverage, strict=True), start=1
    ):
        rows = judged[y[judged] & rule.covers(x[judged])]
        margin = np.min([np.abs(x[rows, t.feature] - t.cut) for t in rule.literals], axis=0)
        most = rows[np.argsort(-margin, kind="stable")[:4]]
        pictures = tuple(
            Picture("covered", f"synthetic image {pair.first_rows[i]}, for which the rule holds",
                    ((pair.first.name, pair.first_rows[i]),))
            for i in most.tolist()
        )  # fmt: skip
        facts = {"precision": precision[0], "coverage": share}
        shown.append(Evidence("rule", f"If {rule.words(names, unit)}, then synthetic", rank, facts, pictures))
    return tuple(shown)
