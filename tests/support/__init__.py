"""What several test files share; here the run-time check of annotations."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""beartype, with an int accepted where a float is wanted, as everywhere in Python."""
