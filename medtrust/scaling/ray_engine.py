"""Ray as an engine: tasks that decode, extract and search; Ray retries them when a worker dies.

Tasks keep no state that a result depends on, so that a retried one gives the same bytes. Answers are taken in the order
of the orders, and only a few orders are under way, so that memory stays flat however large a set is.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch

from medtrust.errors import ConfigError, EngineError
from medtrust.scaling import work
from medtrust.scaling.engines import told
from medtrust.scaling.gathering import gather
from medtrust.scaling.ledger import Proof
from medtrust.scaling.ray_address import check_address, check_health, is_loopback, note_of
from medtrust.scaling.searching import SpreadSearch

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from medtrust.cache import FeatureStore
    from medtrust.extraction import Survey
    from medtrust.images import ImageSet
    from medtrust.progress import Progress
    from medtrust.spaces import Opening
    from medtrust.types import FeatureExtractor, Intensity

__all__ = ["RETRIES", "RayEngine"]

RETRIES = 3  # deaths of a worker over one shard before the shard is blamed
_AHEAD = 2  # orders under way per worker: one in work, one waiting
_KERNEL_CHOICES = ("MEDTRUST_CPU", "MEDTRUST_MATRIX", "ATEN_CPU_CAPABILITY")
_TOKEN = secrets.token_hex(32)  # of private clusters; Ray reads it once per process
_LONGEST_FOLDER = 40  # a Unix socket's path has 107 characters, and Ray adds its own


class RayEngine:
    """A private Ray cluster on this machine, or one that runs already.

    Args:
        address: `HOST:PORT` of a running cluster; None starts one here and stops it in the end.
        workers: Worker processes; as many as the threads of this process leave room for when not given.
        offline: Only this machine may be reached.
        split: Decode and extract in different processes: on machines whose GPU would else wait for a decoder.

    Raises:
        ConfigError: Ray is not installed, or the address cannot be used.
    """

    def __init__(
        self, address: str | None = None, workers: int | None = None, *, offline: bool = False, split: bool = False
    ) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reads it when it is imported
        try:
            import ray
        except ImportError as error:
            raise ConfigError("the engine ray needs Ray; pip install 'medtrust[ray]'") from error
        self._ray: Any = ray
        self._joined = ray.is_initialized()
        if address is not None:
            check_address(address, offline=offline)
            if self._joined:
                raise ConfigError(
                    f"this process uses a Ray cluster already, so it cannot join the one at {address}; leave the "
                    "address out to work on the cluster in use, or call ray.shutdown() first"
                )
            check_health(address)
        self.address, self.split = address, split
        self._asked_workers = workers
        self.workers = workers or 1
        self._folder: Path | None = None
        self._proofs: dict[str, Proof] = {}
        self._threads = torch.get_num_threads()

    # ------------------------------------------------------------------------------------- opening, closing

    def __enter__(self) -> Self:
        if not self._joined:
            if self.address is None:
                base = tempfile.gettempdir()
                short = base if len(base) < _LONGEST_FOLDER else "/tmp"  # noqa: S108
                self._folder = Path(tempfile.mkdtemp(prefix="mt-", dir=short))
            with _quiet_start(self._folder, self._threads):
                try:
                    self._start()
                except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                    self._stop()
                    first = str(error).strip().partition("\n")[0]
                    where = f"the Ray cluster at {self.address}" if self.address else "a Ray cluster on this machine"
                    raise ConfigError(
                        f"{where} cannot be used ({type(error).__name__}: {first}); it must run the same Ray and "
                        "Python, and RAY_AUTH_TOKEN must hold its token where it asks for one"
                    ) from error
                except BaseException:  # interrupted while the daemons start
                    self._stop()
                    raise
        processors = int(self._ray.cluster_resources().get("CPU", 1))
        self.workers = self._asked_workers or max(1, processors // self._cost)
        return self

    def _start(self) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}
        if self.address is not None:
            self._ray.init(address=self.address, **quiet)
            return
        cores = os.cpu_count() or 1
        workers = self._asked_workers or max(1, cores // self._threads)
        self._ray.init(
            address="local", num_cpus=workers, num_gpus=None if self.split else 0, include_dashboard=False,
            _temp_dir=str(self._folder), _node_ip_address="127.0.0.1", **quiet,
        )  # fmt: skip

    @property
    def _cost(self) -> int:
        """Processors that one worker takes, by Ray's book; those of a private cluster are workers already."""
        return 1 if self.address is None else self._threads

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._joined:
            self._stop()

    def _stop(self) -> None:
        with _deaf():  # an impatient second Ctrl-C must not leave processes behind
            self._ray.shutdown()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    # ------------------------------------------------------------------------------------------ the work

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that the user should know before anything is sent."""
        if self.address is None or is_loopback(self.address.rpartition(":")[0]):
            return ()
        return (note_of(self.address),)

    def survey(
        self,
        images: ImageSet,
        extractors: Mapping[str, FeatureExtractor],
        openings: Mapping[str, Opening],
        intensity: Intensity,
        store: FeatureStore | None,
        *,
        batch_size: int,
        progress: Progress,
    ) -> Survey:
        """Decode each image once and collect its features in every space; see `medtrust.scaling.gathering.gather`."""
        if not self._proofs:
            for sentence in self.notes:
                progress.say(sentence)
        found, proof = gather(
            images, extractors, openings, intensity, store, self._ask, self._place(),
            batch_size=batch_size, workers=self.workers, progress=progress,
        )  # fmt: skip
        self._proofs[images.name] = proof
        return found

    def searching(self) -> AbstractContextManager[None]:
        """Spread large searches for neighbours over the workers."""
        return SpreadSearch(self._map_search, self._place(), self.workers).searching()

    def facts(self) -> dict[str, Any]:
        """What run.json says of the engine."""
        return {
            "name": "ray",
            "version": self._ray.__version__,
            "address": self.address or "private",
            "workers": self.workers,
            "threads_per_worker": self._threads,
            "notes": list(self.notes),
            "counted": told(self._proofs),
        }

    def _place(self) -> work.Place:
        choices = {name: os.environ[name] for name in _KERNEL_CHOICES if name in os.environ}
        return work.Place(os.getcwd(), self._threads, choices)

    @contextmanager
    def _ask(self, setup: work.Setup, orders: Iterable[work.Order]) -> Iterator[Iterator[work.Answer | work.Refusal]]:
        shared = self._ray.put(setup)
        retried = {"num_cpus": self._cost, "max_retries": RETRIES, "retry_exceptions": False}
        if self.split:
            first = self._ray.remote(work.decode).options(**(retried | {"num_cpus": 1}))
            gpus = 1 if self._ray.cluster_resources().get("GPU", 0) else 0
            # a task with a GPU ends its process by default, and with it a network that took seconds to load
            second = self._ray.remote(**retried, num_gpus=gpus, max_calls=0)(work.extract)

            def send(order: work.Order) -> Any:
                return second.remote(shared, first.remote(shared, order))
        else:
            whole = self._ray.remote(work.run).options(**retried)

            def send(order: work.Order) -> Any:
                return whole.remote(shared, order)

        with closing(self._in_order(send, orders, lambda order: str(order.shard))) as answers:
            yield answers

    def _map_search(self, shared: Any, pieces: Iterable[Any]) -> Iterator[Any]:
        from medtrust.scaling.searching import search

        kept = self._ray.put(shared)
        task = self._ray.remote(search).options(num_cpus=self._cost, max_retries=RETRIES, retry_exceptions=False)
        return self._in_order(lambda piece: task.remote(kept, piece), pieces, lambda piece: f"rows {piece.where}")

    def _in_order(
        self, send: Callable[[Any], Any], items: Iterable[Any], name: Callable[[Any], str]
    ) -> Generator[Any, None, None]:
        """Map with a bounded number of tasks under way, results in the order of the items."""
        ahead: deque[tuple[str, Any]] = deque()
        try:
            for item in items:
                ahead.append((name(item), send(item)))
                if len(ahead) > _AHEAD * self.workers:
                    yield self._result(*ahead.popleft())
            while ahead:
                yield self._result(*ahead.popleft())
        finally:
            for _, reference in ahead:
                with suppress(Exception):  # it is finished or lost, which is what is wanted
                    self._ray.cancel(reference, force=True)

    def _result(self, name: str, reference: Any) -> Any:
        failed = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except (failed.WorkerCrashedError, failed.OutOfMemoryError, failed.NodeDiedError) as error:
            raise EngineError(
                f"{name} ended its worker {RETRIES + 1} times ({type(error).__name__}); one of its images crashes a "
                "reader or a network, or needs more memory than a worker has: look with --engine local --workers 1"
            ) from error
        except failed.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise EngineError(
                f"{name} came to nothing ({type(error).__name__}: {lines[-1] if lines else 'no reason given'}); every "
                "machine of the cluster needs the same medtrust, plugins and Ray"
            ) from error


@contextmanager
def _quiet_start(folder: Path | None, threads: int) -> Iterator[None]:
    """Start Ray without telemetry, and let it leave the environment and the signals of this process as they are."""
    values = {"RAY_USAGE_STATS_ENABLED": "0"}
    if folder is not None:
        # Ray listens on all interfaces, and takes orders from whoever has this token
        values |= {"RAY_AUTH_TOKEN": _TOKEN, "OMP_NUM_THREADS": str(threads)}
        values |= {"TMPDIR": str(folder)}  # what a worker that is killed leaves behind goes with the folder
        # a worker imports the readers and feature spaces that this process can import
        values |= {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    before = {name: os.environ.get(name) for name in (*values, "RAY_AUTH_MODE")}
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _deaf() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
