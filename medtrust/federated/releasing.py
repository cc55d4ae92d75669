"""The last step before anything leaves a site: the statement is held against the ledger, then written into it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from medtrust.federated.layout import REAL_SETS
from medtrust.federated.ledger import Ledger
from medtrust.federated.signing import SigningKey
from medtrust.federated.site import SiteData, fingerprints, site_statement
from medtrust.federated.statement import Statement
from medtrust.federated.study import Study

__all__ = ["release"]


def release(study: Study, site: str, data: SiteData, key: SigningKey, ledger: Path) -> Statement:
    """Make a statement, unless it would reveal a few patients together with an earlier one.

    Args:
        study: What was agreed.
        site: Name of this site in it.
        data: Its features.
        key: Its private key.
        ledger: Its ledger; the statement is in it when this returns.

    Raises:
        SafetyError: A disclosure rule forbids it; nothing was revealed.
    """
    statement = site_statement(study, site, data, key)
    groups = fingerprints(study, data, site, key)
    book = Ledger(ledger)
    held = sum(data.of(name).features[space].values.numel() for name in REAL_SETS for space in data.of(name).features)
    book.refuse_repetition(study.digest, groups, study.rules, numbers=statement.numbers, held=held)
    book.record(
        study.digest, groups, numbers=statement.numbers, sha256=hashlib.sha256(statement.to_bytes()).hexdigest()
    )
    return statement
