"""URLs of studies, and that no password is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunesearch.study.database import parse, show


@pytest.mark.parametrize(
    ("url", "shown", "name"),
    [
        ("sqlite://", "sqlite://", "memory"),
        ("sqlite:///a/b.db", "sqlite:///a/b.db", "b.db"),
        ("a/b.db", "sqlite:///a/b.db", "b.db"),
        ("/a/b.sqlite3", "sqlite:////a/b.sqlite3", "b.sqlite3"),
        ("postgresql://server/studies", "postgresql://server/studies", "studies"),
        ("postgres://me:secret@server:5433/studies", "postgresql://***@server:5433/studies", "studies"),
        ("postgresql://me:sec/ret@server/x", "postgresql://***@server/x", "x"),
        ("postgresql+psycopg://me@server/studies", "postgresql://***@server/studies", "studies"),
        ("postgresql://me:p%40secret@server/x", "postgresql://***@server/x", "x"),
        ("postgresql://server/x?user=me&password=secret", "postgresql://***@server/x", "x"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str, name: str) -> None:
    database = parse(url)
    assert (database.shown, database.name) == (shown, name)
    assert show(url) == shown
    assert parse(shown).path == database.path
    assert "secret" not in repr(database)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@server",
        "postgresql://me:secret@part@server/studies",
        "postgresql://me:secret@server:port/studies",
        "mysql://me:secret@server/studies",
        "http://me:secret@server/studies",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="Expected") as caught:
        parse(url)
    assert "sec" not in str(caught.value)


def test_an_existing_file_of_any_name_is_a_database_to_look_into(tmp_path: Path) -> None:
    (tmp_path / "studies").touch()
    assert parse(str(tmp_path / "studies")).path == tmp_path / "studies"
    with pytest.raises(ValueError, match=r"or a file such as .* got 'studies'"):
        parse("studies")


@pytest.mark.parametrize("url", [None, 3, b"sqlite://"])
def test_something_else_than_a_url_is_refused(url: object) -> None:
    with pytest.raises(ValueError, match="Expected a study URL such as"):
        parse(url)  # type: ignore[arg-type]
