"""Every page of the built site, in a real browser, on a phone and a desk."""

from pathlib import PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup

# Text nodes that a reader sees, without code and without what MathJax has set.
READ_TEXT = """() => {
  const skip = "pre, code, script, style, mjx-container";
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let text = "";
  while (walker.nextNode())
    if (!walker.currentNode.parentElement.closest(skip))
      text += walker.currentNode.data;
  return text;
}"""


# Leave of all visible text one piece of each look: axe measures the contrast of every
# piece, thousands of them, in a few colours.
ONE_OF_EACH_LOOK = """() => {
  const seen = new Set(), one = [], others = [];
  const grounds = (node) => node
    ? [getComputedStyle(node).backgroundColor, ...grounds(node.parentElement)] : [];
  for (const node of document.body.querySelectorAll("*")) {
    const words = [...node.childNodes].filter(
      (child) => child.nodeType === Node.TEXT_NODE && child.data.trim());
    const { right, width } = node.getBoundingClientRect();
    if (!words.length || !node.checkVisibility({ visibilityProperty: true }) ||
        right < 0 || width < 2) continue;
    const { color, fontSize, fontWeight } = getComputedStyle(node);
    const painted = grounds(node).filter((ground) => ground !== "rgba(0, 0, 0, 0)");
    const look = [node.localName, node.className, color, fontSize, fontWeight,
      ...painted].join();
    if (seen.has(look)) others.push(...words);
    else one.push(words[0]);
    seen.add(look);
  }
  others.forEach((word) => word.remove());
  // It does not measure single letters.
  one.forEach((word) => { word.data += word.data; });
}"""


@pytest.fixture(scope="session")
def soups(site):
    """Parse every page once."""
    return {
        path.relative_to(site).as_posix(): BeautifulSoup(
            path.read_text("utf-8"), "html.parser"
        )
        for path in site.rglob("*.html")
        if "_static" not in path.parts
    }


def test_front_door_leads_to_the_book(soups):
    refresh = soups["index.html"].find("meta", {"http-equiv": "Refresh"})
    assert refresh["content"] == "0; url=book/index.html"


def test_internal_links_lead_somewhere(page_path, soups, site):
    broken = []
    for link in soups[page_path].find_all("a", href=True):
        url = urlsplit(urljoin(f"/{page_path}", link["href"]))
        path, anchor = unquote(url.path)[1:], unquote(url.fragment)
        if url.netloc or link["href"] == "#":
            continue
        if not (site / path).is_file() or (
            anchor and path in soups and not soups[path].find(id=anchor)
        ):
            broken.append(link["href"])
    assert broken == []


def test_headings_and_titles(page_path, soups):
    page = soups[page_path]
    assert len(page.select("h1:not(.onlyprint h1)")) == 1
    assert page.title.text.endswith("Vision Transformer, piece by piece")


def test_page_stays_within_the_window(visit):
    widths = "[document.documentElement.scrollWidth, innerWidth]"
    content, window = visit.page.evaluate(widths)
    assert content <= window


def test_page_has_the_reader_s_colours(visit):
    assert visit.page.evaluate("document.documentElement.dataset.theme") == visit.scheme


def test_images_are_seen_and_described(visit):
    images = "nodes => nodes.map(i => [i.currentSrc, i.naturalWidth])"
    for source, width in visit.page.eval_on_selector_all("img", images):
        assert width > 0, source
    alts = "nodes => nodes.map(i => [i.currentSrc, i.alt])"
    for source, alt in visit.page.eval_on_selector_all("article img", alts):
        assert alt.strip(), source
        assert not PurePosixPath(alt).suffix[1:].isalnum(), f"alt is a path: {alt}"


def test_maths_is_set(visit):
    page = visit.page
    assert page.locator("article .math:not(:has(mjx-container))").count() == 0
    assert page.locator("mjx-merror").count() == 0
    text = page.evaluate(READ_TEXT)
    assert [mark for mark in ("$", r"\(", r"\[", r"\begin") if mark in text] == []


def test_a_click_turns_a_dropdown(visit):
    for fold in visit.page.locator("article details").all():
        before = fold.evaluate("node => node.open")
        fold.locator("> summary").click()
        # It stays open: what comes next may lie in it.
        after = "node => [node.open, node.open = true][0]"
        assert fold.evaluate(after) is not before


def violations(page, **options):
    # Without preload axe fetches nothing of its own.
    options |= {"resultTypes": ["violations"], "preload": False}
    found = Axe().run(page, options=options).response["violations"]
    return {rule["id"]: [node["html"] for node in rule["nodes"]] for rule in found}


def test_page_is_accessible(visit):
    assert violations(visit.page, rules={"color-contrast": {"enabled": False}}) == {}


def test_text_stands_out(visit):
    visit.page.evaluate(ONE_OF_EACH_LOOK)
    assert violations(visit.page, runOnly=["color-contrast"]) == {}


def test_nothing_is_reported_and_nothing_leaves_the_site(visit):
    assert visit.reports == []


def test_search_finds_a_chapter(window, address):
    window.page.goto(f"{address}search.html?q=attention")
    window.page.wait_for_selector("#search-results li a[href*='04_attention']")
