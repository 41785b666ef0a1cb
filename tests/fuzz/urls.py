"""Misspelt addresses of databases, each with the same password somewhere."""

from __future__ import annotations

import random

SECRET = "s3cr3tW0rd"
_TEMPLATES = (
    "{scheme}://me:{pw}@{host}/{db}",
    "{scheme}:/me:{pw}@{host}/{db}",
    "{scheme}//me:{pw}@{host}/{db}",
    "{scheme}:me:{pw}@{host}/{db}",
    "{scheme}me:{pw}@{host}/{db}",
    "me:{pw}@{host}/{db}",
    "{scheme}:///me:{pw}@{host}/{db}",
    "{scheme}://me:{pw}@{host}",
    "{scheme}://:{pw}@{host}/{db}",
    "{scheme}://me:{pw}@part@{host}/{db}",
    "{scheme}://me:{pw}@{host}:port/{db}",
    "{scheme}://{host}/{db}?user=me&password={pw}",
    "{scheme}://{host}/{db}?password={pw}&user=",
    "{scheme}://{host}?user=me&password={pw}",
    "{scheme}://{host}/{db}&user=me&password={pw}",
    "{scheme}://{host}/{db}?user=me;password={pw}",
    "{scheme}://{host}/{db}?user=me,password={pw}",
    "{scheme}://{host}/{db}?user=me&Password={pw}",
    "{scheme}://{host}/{db}?user=me&pwd={pw}",
    "{scheme}://{host}/{db}?sslpassword={pw}",
    "{scheme}://{host}/{db}#password={pw}",
    "{scheme}:///{db}?host={host}&user=me&password={pw}",
    "host={host} user=me password={pw} dbname={db}",
    "user=me password = {pw}",
    "{scheme}://me:pa/{pw}@{host}/{db}",
    "{scheme}://me:pa {pw}@{host}/{db}",
    "{scheme}://me:{pw}\n@{host}/{db}",
)
_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg", "postgressql", "Postgresql", "mysql", "sqlite", "http", "")
_HOSTS = ("server", "127.0.0.1", "[::1]", "db.example.org:5433", "")
_DATABASES = ("studies", "search.db", "x.sqlite3", "a/b.db", "")
_MARKS = ":/@?&=;, #%."


def misspelt(rng: random.Random) -> str:
    """An address with up to two mistakes, none of them within the password."""
    text = rng.choice(_TEMPLATES).format(
        scheme=rng.choice(_SCHEMES), pw=SECRET, host=rng.choice(_HOSTS), db=rng.choice(_DATABASES)
    )
    if rng.random() < 0.5:
        text = _mistyped(rng, text)
    return text


def _mistyped(rng: random.Random, text: str) -> str:
    """One mark doubled, or exchanged for another, or a letter more."""
    start, end = text.index(SECRET), text.index(SECRET) + len(SECRET)
    places = [i for i in range(len(text)) if not start <= i < end and text[i] in _MARKS]
    if not places:
        return text
    place = rng.choice(places)
    kind = rng.randrange(3)
    if kind == 0:
        return text[:place] + text[place] + text[place:]
    if kind == 1 and not start - 2 <= place <= end:  # or the password would be part of a name
        return text[:place] + rng.choice(_MARKS) + text[place + 1 :]
    return text[:place] + rng.choice("ab1") + text[place:] if place > end else text
