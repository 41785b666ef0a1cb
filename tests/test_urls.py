"""No password is shown, however an address is mistyped."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from prunesearch.cli import main
from prunesearch.study.database import parse, show
from prunesearch.urls import described, redacted
from tests.fuzz.urls import SECRET, misspelt


def check_shows_no_password(url: str) -> None:
    """What becomes of an address: a database or an error, and what each says."""
    try:
        database = parse(url)
    except ValueError as error:
        said = f"{error} {error!r}"
    else:
        said = f"{database} {database!r} {database.shown} {database.name} {show(url)}"
        said += database.describe(ValueError(f"could not connect by {database.server!s} with {url}"))
    assert SECRET not in said, url
    assert SECRET not in described(url), url
    assert SECRET not in redacted(f"Got unexpected extra argument ({url})", ["status", url]), url
    assert SECRET not in redacted(f"Got {url!r}.", [f"--study={url}"]), url


@pytest.mark.parametrize("seed", range(8))
def test_a_misspelt_address_shows_no_password(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        check_shows_no_password(misspelt(rng))


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql:/me:{SECRET}@h",
        f"postgresql//me:{SECRET}@h",
        f"me:{SECRET}@h/db",
        f"me:{SECRET}@h/search.db",
        f"postgresql://h/db?user=me&password={SECRET}",
        f"postgresql://h/db&user=me&password={SECRET}",
        f"mysql+pymysql://me:{SECRET}@h/db",
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ["status", "--study", "{url}"],
        ["status", "{url}"],
        ["status", "--study={url}"],
        ["list", "--studdy", "{url}"],
        ["show", "--study", "x.db", "--trials", "{url}"],
        ["search", "--model", "{url}", "--data", "digits", "--budget", "macs=50%"],
        ["search", "--model", "zoo:resnet8", "--data", "digits", "--budget", "macs=50%", "--study", "{url}"],
        ["export", "--study", "{study}", "--study-name", "a", "--optuna", "{url}"],
        ["delete", "--study", "{study}", "--study-name", "{url}", "--yes"],
    ],
)
def test_commands_show_no_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    study = tmp_path / "study.db"
    _make_study(study)
    with pytest.raises(SystemExit) as ended:
        main([word.replace("{url}", url).replace("{study}", str(study)) for word in command])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {"study.db"}


def _make_study(path: Path) -> None:
    from contextlib import closing

    from prunesearch.study.store import Store

    with closing(Store(f"sqlite:///{path}")) as store:
        store.create("a", {}, {"groups": []})


@pytest.mark.parametrize(
    "value",
    [
        f'["postgresql://me:{SECRET}@h/db"]',
        f'{{url = "postgresql://me:{SECRET}@h/db"}}',
        f'[["postgresql:/me:{SECRET}@h"]]',
        f'"postgresql://me:{SECRET}@h"',
        f'"postgresql://me:{SECRET}@h/db',  # no end
    ],
)
@pytest.mark.parametrize("key", ["study", "optuna", "[status]\nstudy", "[export]\noptuna", "status", "json", "sutdy"])
def test_a_config_file_with_a_value_of_another_type_shows_no_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, value: str
) -> None:
    (tmp_path / "config.toml").write_text(f"{key} = {value}\n")
    with pytest.raises(SystemExit) as ended:
        main(["status", "--study", f"sqlite:///{tmp_path / 'x.db'}", "--config", str(tmp_path / "config.toml")])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err


@pytest.mark.parametrize(
    "name", ["search.db", "a b/search.db", "results (2).sqlite", "me@here/a.db", "lr=0.1.db", "sub/x-1,2.db"]
)
def test_names_of_files_are_shown_as_they_are(name: str) -> None:
    assert show(name) == f"sqlite:///{name}"


def test_a_folder_that_looks_like_an_address_can_hold_a_study_that_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "me:here@home"
    folder.mkdir()
    (folder / "a.db").touch()
    assert parse(f"sqlite:///{folder / 'a.db'}").path == folder / "a.db"


@pytest.mark.parametrize("sentence", ["Expected postgresql://USER:PASSWORD@SERVER/DATABASE with", "file a.py: 3 @ 4"])
def test_sentences_without_passwords_stay_as_they_are(sentence: str) -> None:
    assert redacted(sentence) == sentence
