"""Registration."""

from medtrust import MetricSpec, hookimpl


@hookimpl
def medtrust_metrics():
    for name in ("Prints", "Mutates", "Patches", "Disturbs", "Hangs", "Stubborn", "Exits", "Escapes", "LeavesATrap"):
        yield MetricSpec(
            name=name.lower(),
            version="1",
            factory=f"misbehaves.metrics:{name}",
            pillar="fidelity",
            needs=("train", "synthetic", "images", "features"),
        )
