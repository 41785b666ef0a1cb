"""The one place that turns what may be a URL with a password into text that may be shown.

What is not clearly harmless is not shown: a URL that somebody mistyped has its password anywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

_SCHEME = re.compile(r"^[A-Za-z][\w+.-]*://")
_DRIVE = re.compile(r"^[A-Za-z]:[\\/]")
_CREDENTIALS = re.compile(
    r":.*@"  # user:password@server
    r"|(?:pass|pwd|secret|token|credential)\w*\s*[=:]"
    r"|\b(?:host|user|dbname)\s*=",  # the other way to write PostgreSQL's addresses
    re.IGNORECASE | re.DOTALL,
)
_HARMLESS = re.compile(r"[\w./\\~$ ()\[\]{}+,!#%^-]*")
_PLAIN = re.compile(r"[\w.\[\]:-]+")
_IN_SENTENCES = re.compile(r"[^\s'\"`]*:[^\s'\"`]*@")
_NAMED = re.compile(r"(?i)((?:pass|pwd|secret|token|credential)\w*\s*=\s*)[^\s'\"`]+")
_HIDDEN = "***"
HARMLESS_KEYS = ("host", "port", "sslmode", "connect_timeout", "application_name")
"""What of the settings behind the `?` of a URL is shown."""


def may_hold_password(text: str) -> bool:
    """Whether a text could be a URL with a password, also one with typing errors.

    Example:
        >>> [may_hold_password(text) for text in ("me:pw@host/db", "postgresql:/me:pw@h", "search.db", "me@here/a.db")]
        [True, True, False, False]
    """
    rest = _DRIVE.sub("", text) if os.name == "nt" else _SCHEME.sub("", text)
    return _CREDENTIALS.search(rest) is not None


def described(given: object) -> str:
    """Something that is not what was expected, as an error may name it.

    Example:
        >>> described("serach.db"), described("postgresql:/me:pw@host"), described(3)
        ("'serach.db'", 'a text that is not shown, as it may hold a password', '3')
    """
    if given is None or isinstance(given, (bool, int, float)):
        return repr(given)
    if not isinstance(given, str):
        return f"a {type(given).__name__}"
    if not _is_harmless(given):
        return "a text that is not shown, as it may hold a password"
    return repr(given)


def _is_harmless(text: str) -> bool:
    return _HARMLESS.fullmatch(_SCHEME.sub("", text)) is not None and not may_hold_password(text)


def is_plain(part: str) -> bool:
    """Whether a part of a URL has only letters that names of servers and databases have."""
    return _PLAIN.fullmatch(part) is not None


def server_url(kind: str, parts: Mapping[str, str | int | None], settings: Mapping[str, object], *, named: bool) -> str:
    """The address of a database on a server, without who logs in and by what.

    Args:
        kind: How it begins, such as `postgresql`.
        parts: `host`, `port` and `database`.
        settings: Those behind the `?`.
        named: Whether a user or a password was given.
    """
    host = str(parts.get("host") or "")
    port = "" if parts.get("port") is None else f":{parts['port']}"
    shown = {key: value for key, value in settings.items() if key in HARMLESS_KEYS and is_plain(str(value))}
    query = "&".join(f"{key}={value}" for key, value in shown.items())
    login = f"{_HIDDEN}@" if named else ""
    return f"{kind}://{login}{host}{port}/{parts.get('database')}{'?' if query else ''}{query}"


def redacted(sentence: str, arguments: Iterable[str] = ()) -> str:
    """A sentence of any program, without what looks like a password in it.

    Args:
        sentence: What it said.
        arguments: What it had been given, in case it said that.

    Example:
        >>> redacted("Got unexpected extra argument (postgresql://me:pw@host/db)")
        'Got unexpected extra argument (***@host/db)'
    """
    for argument in sorted(arguments, key=len, reverse=True):
        value = argument.partition("=")[2] if argument.startswith("--") else argument
        if may_hold_password(value) or (("://" in value or "@" in value) and not _is_harmless(value)):
            sentence = sentence.replace(value, _HIDDEN).replace(repr(value)[1:-1], _HIDDEN)
    return _NAMED.sub(rf"\1{_HIDDEN}", _IN_SENTENCES.sub(_keep_bracket, sentence))


def _keep_bracket(found: re.Match[str]) -> str:
    if found[0].endswith(("//USER:PASSWORD@", "//USER@")):  # which explains how to write one
        return found[0]
    return ("(" if found[0].startswith("(") else "") + f"{_HIDDEN}@"
