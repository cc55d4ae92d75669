from medtrust import hookimpl


@hookimpl
def medtrust_metrics(planet):
    return []
