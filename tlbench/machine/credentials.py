"""Takes credentials out of texts that others have written: errors, warnings, the last words of a process.

Hidden is what looks like a credential (a token of a known form, the password of an address, what follows ``token=``),
and the value of any environment variable whose name says that it is one. What a person keeps under a name such as
``NOTES`` cannot be told from a word.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

HIDDEN = "[hidden]"
"""Stands where a credential was."""
_NAMES = (
    r"api[_-]?keys?|access[_-]?keys?|private[_-]?keys?|account[_-]?keys?|tokens?|secrets?|passw(?:or)?ds?|passphrases?|"
    r"credentials?|signature"
)
_SECRET_NAME = re.compile(
    rf"{_NAMES}|(?:^|_)(?:keys?|pass|pwd|pw|pat|auth|cookies?|creds?|jwt|dsn|bearer)(?:_|\d|$)", re.I
)
_NO_SECRET = {"PWD", "OLDPWD", "SSH_AUTH_SOCK", "XAUTHORITY"}
_SHORTEST = 6
"""Characters of a value that is looked for in texts: shorter ones are in many words."""
_LOOKS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, flags), HIDDEN if put is None else put)
    for pattern, flags, put in (
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL, None),
        # Tokens that tell by their first letters what they are.
        (r"\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}", 0, None),
        (r"\bsk-[\w-]{16,}|\b[srp]k_(?:live|test)_\w{16,}|\bnvapi-[\w-]{16,}|\bhf_[A-Za-z0-9]{20,}", 0, None),
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}|\bya29\.[\w-]{20,}|\bSG\.[\w-]{16,}\.[\w-]{16,}", 0, None),
        (r"\bxox[abeprs]-[\w-]{10,}|\bnpm_\w{30,}|\bpypi-[\w-]{30,}|\bdckr_pat_[\w-]{20,}", 0, None),
        (r"(?<![\w-])(?=[\w-]++\.[\w-]{5})([\w-]*?)\beyJ[\w-]{6,}+\.[\w-]{5,}(?:\.[\w-]*)?", 0, rf"\1{HIDDEN}"),
        (r"(hooks\.slack\.com/(?:services|workflows)/)[\w/-]+", 0, rf"\1{HIDDEN}"),
        # The user and the password of an address, what its query carries, headers, assignments.
        (r"(?<=[a-z0-9+.-])://[^\s/'\"<>]+@", re.IGNORECASE, f"://{HIDDEN}@"),
        (rf"([?&;](?=[\w.-]*?(?:{_NAMES}|sig|key|auth))[\w.-]++=)[^&\s'\"#]+", re.IGNORECASE, rf"\1{HIDDEN}"),
        (r"\b((?:proxy-)?authorization['\"]?\s*[:=]\s*['\"]?(?:\w+ )?)[^\s'\",;]+", re.IGNORECASE, rf"\1{HIDDEN}"),
        (r"\b((?:bearer|basic) +)[\w.~+/=-]{12,}", re.IGNORECASE, rf"\1{HIDDEN}"),
        (
            rf"(?<![\w-])((?=[\w-]*?(?:{_NAMES}))[\w-]++['\"]?\s*[:=]\s*['\"]?)"
            r"(?=[\w+/.~$!@%^*-]*\d)[\w+/.~$!@%^*-]{6,}",
            re.IGNORECASE,
            rf"\1{HIDDEN}",
        ),
    )
)


def without_credentials(text: str, variables: Mapping[str, str] | None = None) -> str:
    """Returns a text with its credentials hidden, also one that the text ends or begins within. ``variables``: the
    environment, by default that of this process.
    """
    return _without(text, _secrets(os.environ if variables is None else variables))


def _without(text: str, secrets: list[str]) -> str:
    for value in secrets:
        text = _without_ends(text.replace(value, HIDDEN), value)
    for look, put in _LOOKS:
        text = look.sub(put, text)
    return text


def _without_ends(text: str, value: str) -> str:
    """Hides the beginning of a value that a text was cut off within, and the end of one that it was cut out of."""
    # No further from the end than the value is long: in a long text of one letter, it would begin everywhere.
    at = text.find(value[:_SHORTEST], max(0, len(text) - len(value)))
    while at >= 0:
        if value.startswith(text[at:]):
            text = text[:at] + HIDDEN
            break
        at = text.find(value[:_SHORTEST], at + 1)
    at = text.find(value[-_SHORTEST:])
    return HIDDEN + text[at + _SHORTEST :] if at >= 0 and value.endswith(text[: at + _SHORTEST]) else text


def cleaned(data: Any) -> Any:
    """Returns plain data (texts, and lists and mappings of them) with the credentials of its texts hidden."""
    return _cleaned(data, _secrets(os.environ))  # looked for once: a record has a dozen texts


def _cleaned(data: Any, secrets: list[str]) -> Any:
    if isinstance(data, str):
        return _without(data, secrets) if data else data
    if isinstance(data, Mapping):
        return {name: _cleaned(value, secrets) for name, value in data.items()}
    return type(data)(_cleaned(value, secrets) for value in data) if isinstance(data, list | tuple) else data


def _secrets(variables: Mapping[str, str]) -> list[str]:
    """Returns what must not be in a text, the longest first: a value may be a part of another."""
    found = {form for name, value in variables.items() for secret in _of(name, value) for form in _forms(secret)}
    return sorted((form for form in found if len(form) >= _SHORTEST), key=len, reverse=True)


def _of(name: str, value: str) -> Iterator[str]:
    if name in _NO_SECRET:
        return
    if _SECRET_NAME.search(name) and not os.path.exists(value):
        yield value
        yield from value.splitlines()  # of a private key, any line
    if inside := re.search(r"://([^\s/]*):([^\s]*)@", value):  # of a proxy, a database
        yield inside[2]


def _forms(secret: str) -> set[str]:
    """Returns a value as it may stand in a text: as it is, in one line, quoted by Python, JSON or an address."""
    plain = secret.strip()
    return {plain, " ".join(plain.split()), repr(plain)[1:-1], json.dumps(plain)[1:-1], quote(plain, safe="")}
