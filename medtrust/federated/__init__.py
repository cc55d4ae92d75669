"""Federated evaluation: sites reveal signed sums, never images, and the sums make an ordinary trust report."""

from medtrust.federated.copies import Bank
from medtrust.federated.merging import merge
from medtrust.federated.pool import Pool, from_sum, pool_statements
from medtrust.federated.rules import Rules
from medtrust.federated.signing import SigningKey, new_key, read_key, read_public
from medtrust.federated.site import SiteData, SiteSet, site_statement
from medtrust.federated.statement import Statement
from medtrust.federated.study import PublicSpace, Study, make_study

__all__ = [
    "Bank",
    "Pool",
    "PublicSpace",
    "Rules",
    "SigningKey",
    "SiteData",
    "SiteSet",
    "Statement",
    "Study",
    "from_sum",
    "make_study",
    "merge",
    "new_key",
    "pool_statements",
    "read_key",
    "read_public",
    "site_statement",
]
