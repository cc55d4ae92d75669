"""Where an audit decodes, extracts and searches: in this process, or on an engine that spreads it over many.

Whatever the engine, the result has the same bytes: work is cut into the same batches, answers are taken in the order of
the images, and a ledger proves that every image was counted once.
"""

from medtrust.scaling.engines import ENGINES, Engine, LocalEngine, make_engine

__all__ = ["ENGINES", "Engine", "LocalEngine", "make_engine"]
