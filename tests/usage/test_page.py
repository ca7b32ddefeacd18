"""The page shows the numbers of `usage --json`, needs nothing else, and nothing in it can be made to run."""

import asyncio
import json
import shutil
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.ledger import Ledger
from polyvox.usage import Question, as_json, figures, read
from polyvox.usage.charts import HEIGHT, WIDTH, Series, columns, lines
from polyvox.usage.page import FIGURES, _data, page, sheet
from tests.usage.known import CALLS, HOSTILE, Clock, begun, end_of, fill

MADE = datetime(2026, 4, 1, 12, tzinfo=UTC)


class Page(HTMLParser):
    """What a browser would make of a page: its elements, its JSON, and the rows of its table."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.json = [], [], ""
        self.rows, self.totals, self.names = [], [], []
        self.words = []
        self._inside = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag in ("section", "table", "tr", "th", "dd", "td", "script", "style"):
            self._inside.append((tag, dict(attrs)))
        section = next((facts.get("id") for name, facts in self._inside if name == "section"), None)
        if tag == "tr" and section == "table":
            self.rows.append([])
            self.names.append("")
        elif tag == "td" and section == "table":
            self.rows[-1].append(None)
        elif tag == "dd":
            self.totals.append(None)
        elif tag == "data":
            (self.rows[-1] if section == "table" else self.totals)[-1] = dict(attrs)["value"]

    def handle_endtag(self, tag):
        if self._inside and self._inside[-1][0] == tag:
            self._inside.pop()

    def handle_data(self, data):
        inside = self._inside[-1] if self._inside else ("", {})
        if inside[0] == "script":
            self.json += data
        elif inside[0] == "th" and inside[1].get("scope") == "row" and self.names:
            self.names[-1] += data
        if inside[0] not in ("script", "style"):
            self.words.append(data)


def written(place, **facts):
    """A page over a ledger, and what `usage --json` says of the same."""
    with Ledger(place) as ledger:
        question = Question(**{"by": ("model",), **facts})
        whole = read(ledger.history, lambda ask: sheet(ask, question))
        return page(whole, MADE), as_json(figures(ledger.history, question))


def check(text, told):
    """The page has these numbers, in its table and in its JSON, and nothing that runs."""
    seen = Page(text)
    assert json.loads(seen.json)["usage"] == told
    shown = [row for row in seen.rows if row]
    for cells, row in zip(shown, [*told["rows"], told["total"]], strict=True):
        wanted = [row[figure.field] for figure in FIGURES]
        assert cells == [None if value is None else str(value) for value in wanted]
    assert seen.totals == shown[-1]
    assert set(seen.tags) <= HARMLESS
    assert [value for tag, name, value in seen.attributes if tag == "script" and name == "type"] == ["application/json"]
    for _, name, value in seen.attributes:
        assert not name.startswith("on") and name not in ("src", "style", "action", "xlink:href")
        assert name != "href" or value == "#table"
    return seen


HARMLESS = {
    "html", "head", "meta", "title", "style", "body", "a", "header", "h1", "h2", "p", "main", "section", "dl", "div",
    "dt", "dd", "data", "input", "label", "svg", "rect", "circle", "path", "line", "text", "ul", "li", "details",
    "summary", "table", "thead", "tbody", "tfoot", "tr", "th", "td", "bdi", "script",
}  # fmt: skip


def test_the_table_of_the_page_and_its_json_have_the_numbers_of_usage_json(ledger_file):
    fill(ledger_file)
    text, told = written(ledger_file)
    seen = check(text, told)
    assert [name for name in seen.names if name][:2] == ["deep", "swift"]
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text


def test_the_spend_of_each_day_is_split_by_provider_model_and_user_and_adds_up(ledger_file):
    fill(ledger_file)
    text, told = written(ledger_file)
    data = json.loads(Page(text).json)
    assert [split["by"] for split in data["splits"]] == [["day", "provider"], ["day", "model"], ["day", "user"]]
    for found in (data["line"], *data["splits"]):
        assert sum(Decimal(row["cost"] or 0) for row in found["rows"]) == Decimal(told["total"]["cost"])
        assert sum(row["unknown_cost"] for row in found["rows"]) == told["total"]["unknown_cost"] == 3
    # The days between the first and the last have their place, and unknown costs are said.
    words = " ".join(Page(text).words)
    assert "2026-03-15" in words and "2 of unknown cost" in words
    assert "The cost of 3 calls is unknown" in words


def test_names_of_others_are_shown_and_never_obeyed(ledger_file):
    fill(ledger_file)
    text, told = written(ledger_file, by=("model", "user", "tag"), filters={"model": [HOSTILE]})
    seen = check(text, told)
    assert [row["model"] for row in told["rows"]] == [HOSTILE]
    assert seen.names[1].count('</script><img src=x onerror="alert(1)">\ufffd[31m=1+1\ufffd') == 3
    assert "\x1b" not in text and "\u202e" not in text and "<img" not in text


@given(st.text(st.characters(exclude_categories=[]), max_size=40))
def test_json_in_the_page_ends_only_where_it_ends(said):
    inside = _data({"name": said})
    assert not set(inside) & set("<>&") and inside.isascii()
    assert json.loads(inside) == {"name": said}


@given(st.text(st.characters(exclude_categories=[]), min_size=1, max_size=40))
def test_a_plot_is_well_formed_whatever_its_series_are_called(name):
    series = [Series(name, [1.5, None, 0.0], [name, name, name])]
    for draw in (columns, lines):
        root = ET.fromstring(draw(name, ["a", "b", name], series, str))
        assert {element.tag for element in root.iter()} <= {"svg", "line", "text", "rect", "title", "circle", "path"}


@given(
    st.lists(
        st.lists(st.sampled_from([None, 0.0]) | st.floats(1e-12, 1e12), min_size=3, max_size=3), min_size=1, max_size=9
    )
)
def test_all_that_is_plotted_is_inside_the_plot_and_stacks_without_gaps(values):
    series = [Series(f"s{at}", one, ["x"] * 3) for at, one in enumerate(values)]
    root = ET.fromstring(columns("t", ["a", "b", "c"], series, str))
    bars = [{name: float(bar.get(name)) for name in ("x", "y", "width", "height")} for bar in root.iter("rect")]
    assert len(bars) == sum(bool(value) for one in values for value in one)
    for bar in bars:
        assert 0 <= bar["x"] and bar["x"] + bar["width"] <= WIDTH
        assert 0 <= bar["y"] and bar["y"] + bar["height"] <= HEIGHT + 0.2
    for at in range(3):
        stack = [one[at] or 0.0 for one in values]
        tall = sum(bar["height"] for bar in bars if abs(bar["x"] - _x(at)) < 1)
        top = max(sum(one[place] or 0.0 for one in values) for place in range(3))
        # The tallest column takes between three fifths of the room and all of it; others are in proportion.
        if sum(stack) == top and top > 0:
            assert 0.5 * (HEIGHT - 40) <= tall <= HEIGHT - 40 + 0.6 * len(values)


def _x(at):
    step = (WIDTH - 64 - 12) / 3
    return 64 + step * at + (step - min(48.0, step * 0.8)) / 2


def test_a_long_time_is_shown_by_month_and_an_empty_ledger_by_a_page_that_says_so(ledger_file, tmp_path):
    fill(ledger_file)
    empty, told = written(str(tmp_path / "empty.db"))
    assert told["rows"] == [] and "svg" not in Page(empty).tags
    clock = Clock()
    clock.set("2025-06-15T12:00")

    async def one(ledger):
        start = begun(ledger, "swift", "north")
        await ledger.begin(start)
        await ledger.finish(end_of(start, CALLS[0]))

    with Ledger(ledger_file, wall=clock) as ledger:
        asyncio.run(one(ledger))
    text, told = written(ledger_file)
    seen = check(text, told)
    data = json.loads(seen.json)
    assert [row["month"] for row in data["line"]["rows"]] == ["2025-06", "2026-03"]
    assert "2025-12" in " ".join(seen.words)


@pytest.mark.desktop
def test_a_browser_shows_the_same_numbers_and_runs_nothing(ledger_file, tmp_path):
    browser = shutil.which("chromium") or next((p for p in ["/usr/bin/chromium"] if Path(p).exists()), None)
    if browser is None:
        pytest.skip("there is no Chromium on this machine")
    fill(ledger_file)
    text, told = written(ledger_file, by=("model", "user"))
    file = tmp_path / "usage.html"
    file.write_text(text, "utf-8")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--virtual-time-budget=2000", "--dump-dom", file.as_uri()],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    check(done.stdout.decode("utf-8"), told)
