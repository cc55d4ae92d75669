"""What this audit cannot say, worked out from its own results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from medtrust.report.text import sentence
from medtrust.types import PluginFailure, Result

__all__ = ["limitations", "patients_known"]


def limitations(
    subject: Mapping[str, Any],
    data: Mapping[str, Any],
    results: Sequence[Result],
    failures: Iterable[PluginFailure],
    spaces: Mapping[str, Any] = MappingProxyType({}),
    federated: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[str, ...]:
    """Write one sentence per limit of the audit, the widest first.

    Args:
        subject: What was audited.
        data: Description per set.
        results: Every row.
        failures: Plugins that failed.
        spaces: Facts of each feature space.
        federated: What a report of several sites says of its study; empty for any other.
    """
    answered = [r for r in results if r.status == "ok"]
    bare = [r for r in answered if not r.interval and not r.test]
    untested = [r for r in answered if r.selftest and r.selftest.status == "not_run"]
    lines = [
        *_about_sets(subject, data),
        *_about_precision(spaces),
        *_about_sites(federated),
        *(f"{_name(r)} could not be decided: {sentence(r.reason)}" for r in results if r.status != "ok"),
        *(
            f"{_name(r)}: the detector failed its self-test on this data, so it counts neither way. "
            f"{sentence(r.selftest.detail)}"
            for r in answered
            if r.selftest and r.selftest.status == "failed"
        ),
        *_listed("The self-test was not run for", untested),
        *(f"{_name(r)}: {sentence(r.resolution.sentence)}" for r in answered if r.resolution),
        *_listed("No interval, and so no decision by interval, for", bare),
        *_listed("No real-against-real reference for", [r for r in answered if not r.null]),
        *(f"Plugin {f.plugin} of {f.distribution} failed ({f.stage}): {sentence(f.error)}" for f in failures),
    ]
    return tuple(dict.fromkeys(lines))


def _about_sets(subject: Mapping[str, Any], data: Mapping[str, Any]) -> Iterable[str]:
    if not data.get("holdout"):
        yield (
            "There is no holdout set, so nothing could be compared with real images that the generator never saw, "
            "and copying could not be tested."
        )
    unknown = [name for name in ("train", "holdout") if data.get(name) and not patients_known(data[name])]
    if unknown:
        yield (
            f"Patients are unknown in {' and '.join(unknown)}: each image was taken as its own patient, so intervals "
            "are too narrow if a patient has several images."
        )
    for name in ("train", "holdout", "synthetic"):
        yield from (f"Set {name}: {sentence(note)}" for note in (data.get(name) or {}).get("notes", ()))
    if subject.get("kind") == "folder":
        yield "The synthetic images were read from a folder: how they were sampled or selected is not known."


def _about_precision(spaces: Mapping[str, Any]) -> Iterable[str]:
    for name, facts in sorted(spaces.items()) if isinstance(spaces, Mapping) else ():
        precision = facts.get("precision", "fp32") if isinstance(facts, Mapping) else "fp32"
        if precision != "fp32":
            yield (
                f"The feature space {name} was computed in {precision}, not in fp32; its numbers compare with others "
                f"in {precision} only. {sentence(str(facts.get('precision_change', '')))}".strip()
            )


_TELLING = 0.6  # area under the curve above which membership in a site's sums is worth a sentence


def _about_sites(federated: Mapping[str, Any]) -> Iterable[str]:
    if not federated:
        return
    yield (
        "The sites revealed sums, signed but not proved: nobody has seen their images, so a site that errs or "
        "lies about "
        "its images cannot be told from one that does not, and a patient seen at two sites counts twice."
    )
    told = [about.get("membership_auc") or 0.5 for about in federated["sites"].values()]
    if max(told) > _TELLING:
        yield (
            "Somebody who already holds a patient's image can tell whether it is in a site's sums: in the worst case "
            f"with an area under the curve of {max(told):.2f}, where 0.5 is guessing. More images per dimension, or "
            "noise, hide it."
        )
    rules = federated["rules"]
    if rules["lowered"]:
        names = ", ".join(federated["below"])
        yield f"This study lowered the rules {names} that protect patients: {sentence(rules['lowered'])}"
    if federated["absent"]:
        yield f"Sites of the study that sent nothing: {', '.join(federated['absent'])}."
    way = federated.get("transport", {})
    for site, reasons in way.get("refused", {}).items():
        yield f"Messages of {site} were refused on the way: {sentence('; '.join(reasons))}"
    if way.get("strangers"):
        yield f"Somebody who is no site of the study was turned away: {sentence('; '.join(way['strangers']))}"


def patients_known(described: Mapping[str, Any]) -> bool:
    """Say whether a set knows its patients: what it says itself, else whether they were counted."""
    return bool(described.get("patients_known", described.get("n_patients") is not None))


def _listed(lead: str, rows: Sequence[Result]) -> Iterable[str]:
    if rows:
        yield f"{lead}: {', '.join(_name(r) for r in rows)}."


def _name(result: Result) -> str:
    space = result.id.partition("[")[2].rstrip("]")
    parts = [part for part in (space, result.subgroup) if part]
    return f"{result.title or result.id} ({', '.join(parts)})" if parts else result.title or result.id
