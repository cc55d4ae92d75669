"""A service that speaks the Open Inference Protocol v2 (KServe, Triton, MLServer, TorchServe).

Reference: https://github.com/kserve/open-inference-protocol, version 2.0, REST.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.types import Caps, ConditionSpec
from medtrust_adapters.series import Series, noise_rows
from medtrust_adapters.values import VALUE_OPTIONS, Values
from medtrust_generators.options import Options

__all__ = ["Http"]

_FLOATS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
_WHOLE = {"UINT8": np.uint8, "INT16": np.int16, "UINT16": np.uint16, "INT32": np.int32, "INT64": np.int64}
_MAX_ANSWER = 1024**3


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        raise SafetyError(f"{req.full_url} redirects to {newurl}; name the service that is meant")


class _Service:
    def __init__(self, root: str, seconds: float) -> None:
        self._root, self._seconds = root.rstrip("/"), seconds
        # no proxy from the environment: the address that was named is the one that is asked
        self._opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))

    def ask(self, path: str, body: Any = None) -> Any:
        url = f"{self._root}/{path}"
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, content, {"Content-Type": "application/json"})  # noqa: S310 - checked below
        try:
            with self._opener.open(request, timeout=self._seconds) as answer:
                text = answer.read(_MAX_ANSWER + 1)
        except urllib.error.HTTPError as error:
            said = error.read(500).decode("utf-8", "replace")
            raise DataError(f"{url} answered {error.code}: {said or error.reason}") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{url} cannot be reached ({error}); is the service up?") from error
        if len(text) > _MAX_ANSWER:
            raise SafetyError(f"{url} answered with more than {_MAX_ANSWER} bytes; ask for a smaller chunk")
        try:
            return json.loads(text)
        except ValueError as error:
            raise DataError(f"{url} did not answer with JSON; is it an Open Inference service?") from error


class HttpSeries(Series):
    """Asks a service for one chunk at a time."""

    def __init__(
        self, service: _Service, model: str, metadata: Mapping[str, Any], values: Values, options: Options
    ) -> None:
        self._service, self._model = service, model
        inputs = {str(i["name"]): i for i in metadata["inputs"]}
        self._seed = next((i for name, i in inputs.items() if name in ("seed", "seeds")), None)
        self._label = next((i for name, i in inputs.items() if name in ("label", "labels")), None)
        rest = [i for i in inputs.values() if i is not self._seed and i is not self._label]
        if len(rest) > 1 or (not rest and self._seed is None):
            raise ConfigError(
                f"model {model} has the inputs {sorted(inputs)}; a generator here takes one noise tensor or `seed`, "
                "and perhaps `label`"
            )
        self._noise = rest[0] if rest else None
        classes = str(options.values["classes"])
        if (self._label is not None) != bool(classes):
            raise ConfigError(f"model {model}: name its classes by the option classes=… where it has an input `label`")
        names = tuple(map(str, range(int(classes)))) if classes.isdigit() else tuple(classes.split(","))
        conditions = ConditionSpec("label", names, required=True) if classes else ConditionSpec()
        # what runs behind the address is not known and can change between two requests
        version = str(metadata.get("platform", "")), "+".join(map(str, metadata.get("versions", ())))
        facts = {"model": model, "platform": version[0], "versions": version[1]}
        super().__init__(values, options.whole("chunk", lo=1, hi=4096), Caps(), conditions, facts)
        self.probe()

    def draw(self, seeds: Sequence[int], condition: Sequence[Any] | None) -> np.ndarray[Any, Any]:
        """Send noise or seeds, and labels; read the first output."""
        inputs = []
        if self._noise is not None:
            shape = [int(length) for length in self._noise["shape"][1:]]
            if min(shape, default=1) < 1:
                raise ConfigError(f"model {self._model} does not say the shape of its noise: {self._noise['shape']}")
            inputs.append(_tensor(self._noise, noise_rows(seeds, shape)))
        if self._seed is not None:
            inputs.append(_tensor(self._seed, _column(self._seed, [seed % 2**31 for seed in seeds])))
        if self._label is not None and condition is not None:
            inputs.append(
                _tensor(self._label, _column(self._label, [self.conditions.classes.index(c) for c in condition]))
            )
        answer = self._service.ask(f"v2/models/{self._model}/infer", {"inputs": inputs})
        try:
            output = answer["outputs"][0]
            dtype = {**_FLOATS, **_WHOLE}[output["datatype"]]
            return np.asarray(output["data"], dtype).reshape(output["shape"])
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"model {self._model} answered with no tensor ({type(error).__name__}: {error})") from error


def _column(declared: Mapping[str, Any], numbers: Sequence[int]) -> np.ndarray[Any, Any]:
    return np.asarray(numbers, np.int64).reshape((-1,) + (1,) * (len(declared["shape"]) - 1))


def _tensor(declared: Mapping[str, Any], values: np.ndarray[Any, Any]) -> dict[str, Any]:
    datatype = str(declared["datatype"])
    if datatype not in {**_FLOATS, **_WHOLE}:
        raise ConfigError(f"input {declared['name']} has the datatype {datatype}, which no noise, seed or label has")
    return {
        "name": declared["name"],
        "shape": list(values.shape),
        "datatype": datatype,
        "data": values.ravel().tolist(),
    }


class Http:
    """Opens `http:URL?model=NAME`: the `factory` of the spec `http`; the host refuses it under --offline."""

    def open(self, target: str, options: Mapping[str, str], device: str) -> HttpSeries:
        """Ask the service whether the model is ready, and what it takes.

        Args:
            target: "http://host:port" or "https://…".
            options: `model`, `classes`, `seconds` (per request), `output`, `range`, `dtype`, `chunk`.
            device: Any; the service decides.

        Raises:
            ConfigError: The target is no address, or an option is missing or wrong.
            SafetyError: The service redirects, or answers with too much.
            DataError: It cannot be reached, or does not speak the protocol.
        """
        parts = urlsplit(target)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ConfigError(f"{target!r} is no address; write http:http://HOST:PORT?model=NAME")
        defaults = {**VALUE_OPTIONS, "model": "", "classes": "", "seconds": 300, "chunk": 16}
        given = Options("http", defaults, options)
        if not given.values["model"]:
            raise ConfigError("generator http needs the name of a model: add model=NAME")
        model = quote(str(given.values["model"]), safe="")
        service = _Service(target, given.number("seconds", lo=0.1, hi=10**5))
        values = Values.of(given)
        service.ask("v2/health/ready")
        metadata = service.ask(f"v2/models/{model}")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("inputs"), list):
            raise DataError(f"{target} describes model {model} without inputs; is it an Open Inference service?")
        return HttpSeries(service, model, metadata, values, given)
