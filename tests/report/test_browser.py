"""Reports in a real browser: nothing is complained of or asked for, and everything works that looks as if it did."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunesearch.report import write_report
from tests.report.studies import HOSTILE, add_study, deep_space, many_trials, toy_space, trial

pytest.importorskip("playwright", reason="make test-browser installs it")
from playwright.sync_api import Browser, Page  # only where it is installed

from tests.report.browser import CHROMIUM, DESK, PHONE, TABLET, Opened, browser, opened

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="There is no Chromium; on Debian: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # Playwright's event loop at its end
]
BIG = 10_000
LATENCY = {
    "limit_ms": 2.0,
    "full_ms": 4.0,
    "expected_error": 0.03,
    "rounds": ["first", "first, again"],
    "winner": [8, 16],
    "attempts": [
        {"structure": [12, 32], "predicted_ms": 1.9, "measured_ms": 2.1, "low_ms": 2.0, "high_ms": 2.2},
        {"structure": [8, 16], "predicted_ms": 1.7, "measured_ms": 1.8, "low_ms": 1.75, "high_ms": 1.9},
    ],
}
ACCURACY = {
    "score_full": -0.05,
    "accuracy_unpruned": 0.97,
    "accuracy_before": 0.81,
    "accuracy_after": 0.96,
    "ms_per_image": 1.2,
    "ms_per_image_unpruned": 2.0,
    "latency_batch_size": 8,
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


def _full(url: str) -> None:
    """Two studies that know everything there is to know; one of them in two rounds under a latency budget."""
    first = [trial(0, (4, 16), -0.9, ms=1.4), trial(1, (16, 32), -0.2, ms=2.6), trial(2, (12, 32), -0.3, ms=1.9)]
    again = [trial(0, (8, 16), -0.5, ms=1.7), trial(1, (4, 32), None, "Out of memory.", ms=1.6)]
    judged = {"structure": [8, 16], "uniform_structure": [8, 32], "uniform_score": -0.6, "metric": "accuracy"}
    judged |= {"winner": 0.8, "unpruned": 0.97, "uniform": 0.7, "examples": 512}
    known = {**ACCURACY, "latency": LATENCY, "judged": judged, "notes": ["The scores mean little: chance is 10%."]}
    add_study(url, "first", first, summary=known, budget="latency_ms=2.0 by table 12ab")
    add_study(url, "first, again", again, budget="latency_ms=1.8 by table 34cd")
    add_study(url, "second", [trial(i, (8, 32), -0.5 + i / 500) for i in range(120)], summary=ACCURACY)


def _big(url: str) -> None:
    space = deep_space()
    for seed, name in enumerate(("evolution", "random")):
        add_study(url, name, many_trials(space, BIG // 2, name, seed), space=space, budget="macs=60%")


def _eight(url: str) -> None:
    for i in range(8):
        found = [trial(0, (8, 32), -0.5 + i / 20)]
        add_study(url, f"a study of some length, number {i}", found, summary={"score_full": 0.1}, budget=f"macs={i}M")


def _hostile(url: str) -> None:
    bad = [trial(0, (8, 32), -0.5, searcher=HOSTILE), trial(1, (4, 16), None, HOSTILE)]
    space, summary = toy_space(HOSTILE), {**ACCURACY, "latency": {**LATENCY, "conditions": {HOSTILE: HOSTILE}}}
    add_study(url, HOSTILE, bad, space=space, summary=summary, model=HOSTILE, budget=HOSTILE, **{HOSTILE: HOSTILE})
    add_study(url, "${alert(3)}", [trial(0, (8, 32), -0.5)], evaluator=HOSTILE, weight_source=HOSTILE)


def _one(url: str) -> None:
    add_study(url, "one", [trial(0, (8, 32), -0.5)])


def _failed(url: str) -> None:
    add_study(url, "failed", [trial(i, (8, 32), None, "Out of memory.") for i in range(9)])


def _none(url: str) -> None:
    add_study(url, "none")


STUDIES = {
    "full": _full,
    "big": _big,
    "eight": _eight,
    "hostile": _hostile,
    "one": _one,
    "failed": _failed,
    "none": _none,
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    found = {}
    for name, add in STUDIES.items():
        url = f"sqlite:///{folder / name}.db"
        add(url)
        found[name] = write_report(url, folder / f"{name}.html", title=HOSTILE if name == "hostile" else "A report")
    return found


@pytest.fixture
def full(chromium: Browser, reports: dict[str, Path]) -> Iterator[Page]:
    with opened(chromium, reports["full"]) as found:
        yield found.page
        assert found.complaints == []


@pytest.fixture
def big(chromium: Browser, reports: dict[str, Path]) -> Iterator[Page]:
    with opened(chromium, reports["big"]) as found:
        yield found.page
        assert found.complaints == []


def column(page: Page, name: str) -> list[str]:
    return page.locator(f"#trials tbody td.{name}").all_inner_texts()


def sort(page: Page, name: str) -> str | None:
    return page.locator(f"#trials th.{name}").get_attribute("aria-sort")


def check_quiet(found: Opened) -> None:
    assert found.complaints == []
    assert [url for url in found.requests if not url.startswith("data:")] == [found.page.url[:100]]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESK, TABLET, PHONE], ids=["desk", "tablet", "phone"])
@pytest.mark.parametrize("name", STUDIES)
def test_a_report_asks_for_nothing_complains_of_nothing_and_is_no_wider_than_the_screen(
    chromium: Browser, reports: dict[str, Path], name: str, size: tuple[int, int], dark: bool
) -> None:
    with opened(chromium, reports[name], size=size, dark=dark) as found:
        found.page.wait_for_timeout(50)
        check_quiet(found)
        assert found.page.evaluate("document.scrollingElement.scrollWidth") <= size[0]
        assert found.page.evaluate(CLIPPED) == []


NARROW_DESK = (1010, 900)  # just wide enough for tables that are no cards
OUTSIDE = """() => [...document.querySelectorAll("svg text")]
    .filter(text => text.getBoundingClientRect().right > window.innerWidth).map(text => text.textContent)"""
WRAPPED = """() => [...document.querySelectorAll("#trials td:is(.number, .macs, .params, .seconds)")]
    .filter(cell => getComputedStyle(cell).whiteSpace !== "nowrap").map(cell => cell.textContent)"""


@pytest.mark.parametrize("name", ["full", "big", "eight"])
def test_no_label_of_a_figure_is_cut_off_on_a_phone_and_no_number_is_broken_on_a_desk(
    chromium: Browser, reports: dict[str, Path], name: str
) -> None:
    with opened(chromium, reports[name], size=PHONE) as found:
        assert found.page.evaluate(OUTSIDE) == []
    with opened(chromium, reports[name], size=NARROW_DESK) as found:
        assert found.page.evaluate(WRAPPED) == []  # or a long structure beside it breaks a number
        assert found.page.evaluate(CLIPPED) == []


def test_a_policy_that_did_not_hold_would_be_noticed(
    chromium: Browser, reports: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.html"
    text = reports["one"].read_text().replace("</body>", '<img src="http://127.0.0.1:9/x"><script>1</script></body>')
    broken.write_text(text)
    with opened(chromium, broken) as found:
        found.page.wait_for_timeout(50)
        assert len(found.complaints) >= 2


def test_texts_of_the_database_are_shown_and_never_run(chromium: Browser, reports: dict[str, Path]) -> None:
    with opened(chromium, reports["hostile"]) as found:
        page = found.page
        assert page.title() == HOSTILE
        assert HOSTILE in page.locator("main").inner_text()
        assert page.locator("img").count() == 0
        assert page.locator("script").count() == 2
        page.locator("#trials th.searcher button").click()
        page.locator("#trials-find").fill("alert(2)")
        assert HOSTILE in column(page, "searcher")
        assert page.locator("#trials img").count() == 0
        page.locator("#history-0 .plot").hover()
        check_quiet(found)


def test_a_click_sorts_and_another_turns_it_round(full: Page) -> None:
    assert (sort(full, "score"), sort(full, "macs")) == ("descending", "none")
    full.locator("#trials th.macs button").click()
    macs = [int(text.replace(",", "")) for text in column(full, "macs")]
    assert macs == sorted(macs)
    assert (sort(full, "score"), sort(full, "macs")) == ("none", "ascending")
    full.locator("#trials th.macs button").click()
    turned = [int(text.replace(",", "")) for text in column(full, "macs")]
    assert turned == sorted(turned, reverse=True)
    assert turned[0] > macs[0]
    assert sort(full, "macs") == "descending"


def test_the_keyboard_sorts_too(full: Page) -> None:
    full.locator("#trials th.number button").focus()
    full.keyboard.press("Enter")
    assert sort(full, "number") == "ascending"
    full.keyboard.press("Tab")
    full.keyboard.press("Space")
    assert (sort(full, "number"), sort(full, "score")) == ("none", "descending")


def test_failures_stay_last_however_scores_are_sorted(full: Page) -> None:
    full.locator("#trials-study").select_option(label="first, again")
    assert column(full, "score") == ["-0.5", "Out of memory."]
    full.locator("#trials th.score button").click()
    assert column(full, "score") == ["-0.5", "Out of memory."]
    assert sort(full, "score") == "ascending"


def test_pages_are_turned_and_end(full: Page) -> None:
    position = full.locator("#trials-position")
    assert position.inner_text() == "1 to 50 of 125"
    assert full.locator("#trials-previous").is_disabled()
    full.locator("#trials-next").click()
    assert position.inner_text() == "51 to 100 of 125"
    full.locator("#trials-last").click()
    assert position.inner_text() == "101 to 125 of 125"
    assert len(column(full, "score")) == 25
    assert full.locator("#trials-next").is_disabled()
    full.locator("#trials-first").click()
    assert position.inner_text() == "1 to 50 of 125"


def test_filters_narrow_what_is_shown(full: Page) -> None:
    full.locator("#trials-state").select_option("failed")
    assert column(full, "score") == ["Out of memory."]
    full.locator("#trials-state").select_option("all")
    full.locator("#trials-find").fill("12 32")
    assert column(full, "structure") == ["12 32"]
    full.locator("#trials-find").fill("no such thing")
    assert column(full, "structure") == []
    assert full.locator("#trials-position").inner_text() == "No trial is like that."


def test_ten_thousand_trials_are_sorted_and_found(big: Page) -> None:
    assert big.locator("#trials-position").inner_text() == f"1 to 50 of {BIG:,}"
    assert len(column(big, "score")) == 50
    best = [float(text) for text in column(big, "score")]
    assert best == sorted(best, reverse=True)
    big.locator("#trials-state").select_option("failed")
    assert big.locator("#trials-position").inner_text() == "1 to 50 of 100"


def test_a_pointer_near_a_point_is_told_which_trial_it_is(big: Page) -> None:
    plot = big.locator("#front-macs-0 .plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    big.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.35)
    text = big.locator("#tip").inner_text()
    assert re.match(r"(evolution|random), trial \d+\nscore -", text)
    big.mouse.move(2, 2)
    assert big.locator("#tip").is_hidden()


def test_both_themes_keep_every_text_readable(chromium: Browser, reports: dict[str, Path]) -> None:
    """WCAG's AA: a contrast of 4.5 between each text and what is behind it."""
    for dark in (False, True):
        with opened(chromium, reports["full"], dark=dark) as found:
            worst = found.page.evaluate(CONTRAST)
            assert worst["ratio"] >= 4.5, (dark, worst)
            assert worst["texts"] > 100


def test_figures_say_what_they_show(full: Page) -> None:
    plots = full.locator(".plot").all()
    assert len(plots) > 2
    for plot in plots:
        names = (plot.get_attribute("aria-labelledby") or "").split()
        assert all(full.locator(f"#{name}").text_content() for name in names)
        assert len(names) == 2


def test_headings_are_in_order(full: Page) -> None:
    levels = [int(tag[1]) for tag in full.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => h.tagName)")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))


def test_without_scripts_the_winner_the_figures_and_the_best_trials_are_there(
    chromium: Browser, reports: dict[str, Path]
) -> None:
    with opened(chromium, reports["full"], scripts=False) as found:
        page = found.page
        assert page.locator(".tiles").first.is_visible()
        assert page.locator(".verdicts").first.is_visible()
        assert page.locator(".plot:visible").count() == 6
        assert len(column(page, "score")) == 25
        assert page.locator(".controls").is_hidden()
        assert page.locator(".copy:visible").count() == 0
        assert page.locator("noscript").is_visible()
        check_quiet(found)


@pytest.mark.parametrize(("name", "most"), [("full", 6), ("big", 7), ("one", 4)])
def test_printed_it_is_light_a_few_pages_long_and_without_buttons(
    chromium: Browser, reports: dict[str, Path], name: str, most: int
) -> None:
    with opened(chromium, reports[name], dark=True) as found:
        printed = found.page.pdf(format="A4", prefer_css_page_size=True)
        assert 1 < len(re.findall(rb"/Type\s*/Page\b", printed)) <= most
        found.page.emulate_media(media="print")
        assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert found.page.locator("button:visible:not(th button), select:visible, nav:visible").count() == 0
        assert found.page.locator("#trials tbody tr:visible").count() <= 25
        assert found.page.locator(".print-only:visible").count() == (0 if name == "one" else 1)


@pytest.mark.parametrize("printed", [False, True], ids=["screen", "paper"])
def test_no_name_of_a_layer_is_broken(chromium: Browser, reports: dict[str, Path], printed: bool) -> None:
    with opened(chromium, reports["big"], size=(760, 1000) if printed else DESK) as found:
        found.page.emulate_media(media="print" if printed else "screen")
        named = found.page.locator(".bars tbody th")
        assert any("layer19.conv" in text for text in named.all_inner_texts())
        assert found.page.evaluate(WRAPPED) == []  # or a long structure beside it breaks a number


def test_lines_to_load_the_result_are_copied(chromium: Browser, reports: dict[str, Path]) -> None:
    with opened(chromium, reports["one"]) as found:
        found.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        found.page.locator("[data-of=python-code]").click()
        found.page.get_by_text("Copied").wait_for()
        copied = found.page.evaluate("navigator.clipboard.readText()")
        assert "study_name='one'" in copied
        assert copied == found.page.locator("#python-code").text_content()


BROKEN = """() => [...document.querySelectorAll(".bars tbody th")].filter((e) => {
  const name = document.createRange();
  name.selectNodeContents([...e.childNodes].find((node) => node.nodeType === 3 && node.textContent.trim()) || e);
  return new Set([...name.getClientRects()].filter((r) => r.width).map((r) => Math.round(r.top))).size > 1;
}).map((e) => e.textContent.trim())"""

CLIPPED = """() => [...document.querySelectorAll("table, td, th, pre, .tiles div, .card, .banner")]
  .filter((e) => e.getClientRects().length && (e.scrollWidth > e.clientWidth + 1
    || e.getBoundingClientRect().right > document.documentElement.clientWidth + 1))
  .map((e) => `${e.tagName} ${e.className}: ${e.textContent.trim().slice(0, 40)}`)
  .slice(0, 5)"""

CONTRAST = """() => {
  const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const found = parse(getComputedStyle(e).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  let worst = { ratio: 99, texts: 0 };
  for (const element of document.querySelectorAll("body *")) {
    const texts = [...element.childNodes].filter((n) => n.nodeType === 3 && n.textContent.trim());
    if (!texts.length || !element.getClientRects().length || element.disabled) continue;
    if (["SCRIPT", "STYLE", "TITLE", "DESC", "NOSCRIPT"].includes(element.tagName.toUpperCase())) continue;
    const style = getComputedStyle(element);
    const colour = element instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(parse(colour)), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const seen = worst.texts + 1;
    if (ratio < worst.ratio) worst = { ratio, text: texts[0].textContent.trim().slice(0, 40), colour };
    worst.texts = seen;
  }
  return worst;
}"""
