"""Secure aggregation: a coordinator learns the sum of the sites' vectors and nothing else of them.

The protocol is that of Bonawitz et al. with signed keys and the consistency check, on the complete graph (what SecAgg+
becomes when every site is everybody's neighbour). It knows nothing of networks: `Participant.answer` takes bytes and
returns bytes, and so does `Summation`. A transport carries them.

References:
    Bonawitz et al., Practical Secure Aggregation, CCS 2017, doi:10.1145/3133956.3133982 (Figure 4, the active-adversary
    variant: signatures, threshold above two thirds, consistency check). Bell et al., SecAgg+, CCS 2020,
    doi:10.1145/3372297.3417885.
"""

from __future__ import annotations

from medtrust.secagg.fixed import LIMIT, RESOLUTION, decode, encode
from medtrust.secagg.participant import Participant
from medtrust.secagg.rules import MINIMUM_SITES, threshold
from medtrust.secagg.summation import Summation
from medtrust.secagg.wire import Refused

__all__ = [
    "LIMIT",
    "MINIMUM_SITES",
    "RESOLUTION",
    "Participant",
    "Refused",
    "Summation",
    "decode",
    "encode",
    "threshold",
]
