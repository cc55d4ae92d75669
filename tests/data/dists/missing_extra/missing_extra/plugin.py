from medtrust import MetricSpec, hookimpl


@hookimpl
def medtrust_metrics():
    yield MetricSpec(
        name="heavy",
        version="1",
        factory="missing_extra.heavy:Heavy",
        pillar="fidelity",
        requires=("a_package_that_nobody_has", "json"),
        extra="heavy",
    )
    yield MetricSpec(
        name="bare",
        version="1",
        factory="missing_extra.heavy:Heavy",
        pillar="fidelity",
        requires=("a_package_that_nobody_has.part",),
    )
    yield MetricSpec(
        name="satisfied",
        version="1",
        factory="json:dumps",
        pillar="fidelity",
        requires=("json.decoder", "missing_extra.parent.child"),
        extra="heavy",
    )
