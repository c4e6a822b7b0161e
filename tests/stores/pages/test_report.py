"""The report's page, read back by an HTML parser: everything is there, and nothing that came from data is markup."""

from __future__ import annotations

from html.parser import HTMLParser

from stores.pages.report import PageImage, Report, Section, Table, TableCell, TableColumn, page_html

EVIL = "</style><script>alert(1)</script><img src=x onerror=alert(2)>&\"'{{ 7 * 7 }}{% raise %}"


class Page(HTMLParser):
    """Texts by the tag that they stand in, attributes by tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data))

    def of(self, tag: str) -> list[str]:
        return [text for inside, text in self.texts if inside == tag]


def report(word: str) -> Report:
    columns = [TableColumn(f"up {word}", f"more {word}", "high"), TableColumn("down", "less", "low")]
    rows = {f"row {word}": [TableCell(f"1 {word}", f"0 to 2 {word}", True), TableCell("–")]}
    table = Table(f"table {word}", columns, rows, f"note {word}")
    image = PageImage(f"{word}.png", f"image {word}", 30, 20)
    section = Section(f"section {word}", [f"line {word}"], [table], [image])
    return Report(
        f"title {word}", [f"verdict {word}"], [section], [f"failure {word}"], {f"fact {word}": f"text {word}"}
    )


def test_everything_is_on_the_page() -> None:
    page = Page(page_html(report("plain")))
    assert page.open == []
    assert page.of("title") == page.of("h1") == ["title plain"]
    assert page.of("h2") == ["section plain", "Failures", "Made from"]
    assert page.of("p") == ["verdict plain", "line plain", "note plain"]
    assert page.of("th") == ["up plain ↑", "down ↓", "row plain"]
    assert page.of("td") == ["1 plain", "–"]
    assert page.of("small") == ["0 to 2 plain"]
    assert page.of("li") == ["failure plain"]
    assert page.of("dd") == ["more plain", "less", "text plain"]
    assert [attributes.get("class") for tag, attributes in page.attributes if tag == "td"] == ["best", None]
    image = next(attributes for tag, attributes in page.attributes if tag == "img")
    assert image == {"src": "plain.png", "alt": "image plain", "width": "30", "height": "20", "loading": "lazy"}


def test_no_failure_is_said_so() -> None:
    page = Page(page_html(Report("Compared", [], [], [])))
    assert page.of("p") == ["None: every picture that was begun was made."]
    assert page.of("li") == []


def test_hostile_names_are_text() -> None:
    page = Page(page_html(report(EVIL)))
    plain = Page(page_html(report("plain")))
    assert [tag for tag, _ in page.attributes] == [tag for tag, _ in plain.attributes]
    assert [text.replace(EVIL, "plain") for _, text in page.texts] == [text for _, text in plain.texts]
    assert [attributes.keys() for _, attributes in page.attributes] == [
        attributes.keys() for _, attributes in plain.attributes
    ]
