"""The report in a browser: it sorts, filters, follows links, asks no network for anything, and nothing overlaps."""

import json
import time
from datetime import UTC, datetime

import pytest
from browser import CHROMIUM, Browser
from images import with_classes
from records import QUALITY, RANDOM, example_run, record

from tlbench.analysis.frame import rows
from tlbench.report import _templates, contents, write_report

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt install chromium)"),
]

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def browser():
    made = Browser()
    yield made
    made.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Three backbones, six policies, two heads, three seeds, and a CUDA run of a part."""
    folder = tmp_path_factory.mktemp("report")
    records = [*example_run(), *example_run(devices=("cuda",), policies=("linear_probe", "full"))]
    return write_report(
        records, folder, [f"results/{r.cell.device}" for r in records], datetime(2026, 1, 2, tzinfo=UTC)
    )


@pytest.fixture
def opened(browser, report):
    browser.events.clear()
    browser.open(report)
    yield browser
    assert browser.errors() == []
    assert [url for url in browser.requests() if not url.startswith(("file:", "data:"))] == []


def column(browser, name):
    """Texts of a column of the rows that are shown."""
    return browser.js(f"""(() => {{
        const headings = [...document.querySelectorAll("#rows th")];
        const place = headings.findIndex((th) => th.dataset.name === {json.dumps(name)});
        return [...document.querySelectorAll("#rows tbody tr")].map((tr) => {{
            const cell = tr.cells[place];
            return cell.dataset.v ?? cell.firstChild.textContent.trim();
        }});
    }})()""")


def click(browser, name):
    browser.js(f"document.querySelector('#rows th[data-name={name}] button').click()")


@pytest.mark.parametrize(
    ("name", "first", "then"),
    [("training_seconds", "ascending", "descending"), ("accuracy_test", "descending", "ascending")],
)
def test_sorting_by_a_figure(opened, name, first, then):
    """The best comes first: of times the shortest, of accuracies the highest."""
    before = column(opened, name)
    click(opened, name)
    known = [float(v) for v in column(opened, name) if v != "–"]
    assert known == sorted((float(v) for v in before if v != "–"), reverse=first == "descending")
    assert len(known) > 30
    assert set(column(opened, name)[len(known) :]) == {"–"}
    assert opened.js(f"document.querySelector('th[data-name={name}]').ariaSort") == first
    click(opened, name)
    assert [float(v) for v in column(opened, name) if v != "–"] == known[::-1]
    assert opened.js(f"document.querySelector('th[data-name={name}]').ariaSort") == then
    click(opened, name)
    assert column(opened, name) == before


def test_what_rows_are_sorted_by_cannot_be_hidden(opened):
    box = "document.querySelector('#columns input[data-name=accuracy_test]')"
    order = box.replace("accuracy_test", "accuracy_val")  # that of the page as it comes
    assert not opened.js(f"{box}.disabled")
    assert opened.js(f"{order}.disabled")
    click(opened, "accuracy_test")
    assert opened.js(f"{box}.disabled")
    assert not opened.js(f"{order}.disabled")
    opened.js("document.querySelector('form.controls button[type=reset]').click()")
    time.sleep(0.1)
    assert not opened.js(f"{box}.disabled")


def test_an_accuracy_is_on_the_first_screen_of_a_phone(browser, report):
    browser.open(report, width=390, height=844)
    top = "document.querySelector('.headline').getBoundingClientRect()"
    assert browser.js(f"{top}.bottom") < 844
    assert " % (" in browser.js("document.querySelector('.headline').textContent")
    right = "document.querySelector('#rows td:nth-child({})').getBoundingClientRect().right"
    places = browser.js("[...document.querySelectorAll('#rows th')].map((th) => th.dataset.name)")
    for name in ("accuracy_val", "accuracy_test"):
        assert browser.js(right.format(places.index(name) + 1)) < 390
    assert "last_1 · mlp" in browser.js("document.querySelector('#rows tbody').innerText")


def test_green_is_for_what_is_decided(opened):
    colors = opened.js("""(() => {
        const good = getComputedStyle(document.documentElement).getPropertyValue("--good");
        const probe = document.body.appendChild(document.createElement("p"));
        probe.style.color = good;
        return [getComputedStyle(probe).color, ...[...document.querySelectorAll(".pick")].map(
            (pick) => [pick.classList.contains("decided"), getComputedStyle(pick).borderLeftColor])];
    })()""")
    good, *picks = colors
    assert len(picks) > 3
    assert all((color == good) == decided for decided, color in picks)


def test_sorting_by_a_name(opened):
    click(opened, "freeze")
    found = column(opened, "freeze")
    assert found == sorted(found)
    assert len(set(found)) > 5


def test_filters_and_search(opened):
    total = len(column(opened, "freeze"))
    opened.js("""(() => {
        const select = document.querySelector("select[data-name=freeze]");
        select.value = [...select.options].find((option) => option.text === "full").value;
        select.dispatchEvent(new Event("change", { bubbles: true }));
    })()""")
    full = column(opened, "freeze")
    assert set(full) == {"full"}
    assert opened.js("document.querySelector('#count').textContent") == f"{len(full)} of {total} configurations"
    opened.js("""(() => {
        const search = document.querySelector("#search");
        search.value = "RESNET18 mlp";
        search.dispatchEvent(new Event("input", { bubbles: true }));
    })()""")
    assert set(zip(column(opened, "backbone"), column(opened, "head"), strict=True)) == {("resnet18", "mlp")}
    assert 0 < len(column(opened, "head")) < len(full)
    opened.js("document.querySelector('form.controls button[type=reset]').click()")
    time.sleep(0.1)
    assert len(column(opened, "freeze")) == total


def test_filtering_by_status(opened):
    opened.js("""(() => {
        const select = document.querySelector("select[data-name=status]");
        select.value = [...select.options].find((option) => option.text === "failed").value;
        select.dispatchEvent(new Event("change", { bubbles: true }));
    })()""")
    assert column(opened, "backbone") == ["mobilenet_v3_small"]


def test_columns_can_be_hidden_and_shown(opened):
    shown = "getComputedStyle(document.querySelector('#rows th[data-name={}]')).display"
    assert opened.js(shown.format("head")) != "none"
    assert opened.js(shown.format("machine")) == "none"
    for name in ("head", "machine"):
        opened.js(f"document.querySelector('#columns input[data-name={name}]').click()")
    assert opened.js(shown.format("head")) == "none"
    assert opened.js(shown.format("machine")) != "none"


def test_a_row_links_to_its_cells_section(opened):
    opened.js("document.querySelector('#rows tbody a').click()")
    time.sleep(0.2)
    text = opened.js("document.querySelector('#cell').innerText")
    assert "train efficientnet_lite0 · full · linear" in text
    assert "tlbench run --task train --backbone efficientnet_lite0 --freeze full" in text
    assert "Environment (machine" in text
    assert opened.js("document.querySelectorAll('#cell polyline').length") >= 6  # curves and rounds of three seeds
    assert opened.js("document.querySelector('#cell').getBoundingClientRect().top") < 200
    assert opened.js("location.hash").startswith("#cell-")


def test_a_point_of_a_figure_links_to_its_cell(opened):
    assert opened.js("""(() => {
        const link = document.querySelector("#figure-accuracy_against_cost svg a");
        location.hash = link.getAttribute("href") || link.getAttribute("xlink:href");
        return link.querySelector("title").textContent;
    })()""").startswith("efficientnet_lite0 · ")
    time.sleep(0.2)
    assert not opened.js("document.querySelector('#cell').hidden")


def test_every_section_can_be_opened(opened, report):
    """Whatever a cell is: trained, failed, skipped, inference."""
    count = opened.js("""(async () => {
        const keys = Object.keys(JSON.parse(document.querySelector("#details").textContent).cells);
        for (const key of keys) {
            location.hash = `#cell-${key}`;
            await new Promise((done) => setTimeout(done, 5));
            if (!document.querySelector("#cell pre").textContent.startsWith("tlbench run")) throw new Error(key);
        }
        return keys.length;
    })()""")
    assert count == len(
        {
            row["configuration"]
            for row in rows([*example_run(), *example_run(devices=("cuda",), policies=("linear_probe", "full"))])
        }
    )


LAID_OUT = """(() => {
    const faults = [];
    const page = document.documentElement.scrollWidth;
    if (page > innerWidth) faults.push(`the page is ${page} wide`);
    const box = (element) => element.getBoundingClientRect();
    const slanted = (text) => text.getAttribute("transform")?.includes("rotate(-");  // its box is larger than it
    const overlap = (a, b, low, high) => Math.min(a[high], b[high]) - Math.max(a[low], b[low]);
    document.querySelectorAll("figure svg").forEach((svg) => {
        const frame = box(svg);
        const texts = [...svg.querySelectorAll("text")].filter((text) => text.textContent.trim() && box(text).width);
        texts.forEach((text, n) => {
            const own = box(text);
            const whole = (low, high, size) => overlap(own, frame, low, high) >= size - 1;
            const inside = whole("left", "right", own.width) && whole("top", "bottom", own.height);
            if (!inside) faults.push(`"${text.textContent}" is cut off in ${svg.ariaLabel}`);
            if (slanted(text)) return;
            texts.slice(n + 1).filter((other) => !slanted(other)).forEach((other) => {
                const second = box(other);
                if (overlap(own, second, "left", "right") > 1.5 && overlap(own, second, "top", "bottom") > 3)
                    faults.push(`"${text.textContent}" lies on "${other.textContent}" in ${svg.ariaLabel}`);
            });
        });
    });
    document.querySelectorAll("h1, h2, h3, p, li, dd, dt, figcaption, pre, summary, label").forEach((element) => {
        const own = box(element);
        if (element.closest(".scroll") || !own.width || !element.checkVisibility()) return;
        const spills = element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== "inline";
        if (own.right > innerWidth + 1 || own.left < -1 || spills)
            faults.push(`"${element.textContent.slice(0, 40)}" sticks out`);
    });
    return faults;
})()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overlaps_or_is_cut_off(browser, report, width, dark):
    browser.open(report, width=width, dark=dark)
    assert browser.js(LAID_OUT) == []
    browser.js("document.querySelector('#rows tbody a').click()")
    browser.js("document.querySelectorAll('details').forEach((element) => (element.open = true))")
    time.sleep(0.2)
    assert browser.js(LAID_OUT) == []


FRUIT = (
    "Golden-Delicious",
    "Granny-Smith",
    "Royal-Gala",
    "Pink-Lady",
    "Oatghurt",
    "Yoghurt with a very long name of 2 %",
)


@pytest.fixture(scope="module", params=[2, 10, 81])
def of_classes(request, tmp_path_factory):
    """A report of two seeds with so many classes."""
    count = request.param
    names = [f"{FRUIT[n % len(FRUIT)]}{'' if n < len(FRUIT) else f' {n}'}" for n in range(count)]
    records = [with_classes(record(seed=n), count, 4 * count, gain=2.0, names=names) for n in (0, 1)]
    return count, write_report(records, tmp_path_factory.mktemp("classes"), ["run"] * 2)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_classes_of_a_cell_are_readable(browser, of_classes, width, dark):
    count, report = of_classes
    browser.events.clear()
    browser.open(report, width=width, dark=dark)
    browser.js("""document.querySelector('.hint a[href^="#cell-"]').click()""")
    time.sleep(0.2)
    assert browser.js(LAID_OUT) == []
    assert browser.errors() == []
    rows = "[...document.querySelectorAll('.classes tbody tr')].map((tr) => tr.cells[0].textContent)"
    assert len(browser.js(rows)) == min(count, 20)
    browser.js("document.querySelector('#cell p button')?.click()")
    assert len(browser.js(rows)) == count
    browser.js("document.querySelector('.classes th button').click()")
    assert browser.js(rows) == browser.js(f"{rows}.sort((a, b) => a.localeCompare(b, 'en', {{ numeric: true }}))")
    smallest = browser.js("""Math.min(...[...document.querySelectorAll("#cell svg text")].map(
        (text) => {
            const { a, b } = text.getScreenCTM();
            return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(a, b);
        }))""")
    assert smallest >= 7
    words = browser.js("document.querySelector('#cell').innerText")
    assert " taken for " in words
    assert "Expected calibration error" in words


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(browser, report, dark):
    """Contrast of 4.5 (WCAG AA) for texts of the page; 3 for its large headings is met with it."""
    browser.open(report, dark=dark)
    faults = browser.js("""(() => {
        const parse = (color) => color.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => {
            const part = (c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
            return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
        };
        const behind = (element) => {
            for (; element; element = element.parentElement) {
                const color = parse(getComputedStyle(element).backgroundColor);
                if (color.length === 3 || color[3] > 0) return color;
            }
            return [255, 255, 255];
        };
        const kinds = "h1, h2, h3, p, li, dd, dt, figcaption, td, th, small, summary, a, output";
        return [...document.querySelectorAll(kinds)]
            .filter((element) => element.getBoundingClientRect().width && !element.closest("svg"))
            .filter((element) => {
                const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
                return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5;
            })
            .map((element) => element.outerHTML.slice(0, 80));
    })()""")
    assert faults == []


def test_a_name_that_looks_like_a_script_is_text(browser, tmp_path):
    records = [
        record(dataset=f"folder:{EVIL}", weights=EVIL, initial={**RANDOM, "source": EVIL}, seed=n) for n in (0, 1)
    ]
    browser.events.clear()
    browser.open(write_report(records, tmp_path, [EVIL] * 2))
    assert EVIL in browser.js("document.querySelector('.runs').textContent")
    browser.js("document.querySelector('#rows tbody a').click()")
    time.sleep(0.2)
    assert EVIL in browser.js("document.querySelector('#cell').textContent")
    assert browser.js("document.querySelectorAll('script').length") == 2
    assert not [event for event in browser.events if event["method"] == "Page.javascriptDialogOpening"]
    assert browser.errors() == []


def test_ten_thousand_configurations_stay_responsive(browser, tmp_path):
    """The page without its figures, which do not grow with the number of records; its size leaves room for them."""
    records = [
        record(backbone=name, freeze=policy, lr=n * 1e-5, seconds=(1.0 + n,) * 5, accuracies=(0, 0, 0, 0, n / 1250))
        for n in range(1250) for name in QUALITY for policy in ("full", "norm")
    ]  # fmt: skip
    table = rows(records, "results/large")
    context = contents.context(table, contents.ordered(table), datetime(2026, 1, 2, tzinfo=UTC))
    context |= contents.of_figures([]) | {"parquet": True}
    path = tmp_path / "report.html"
    path.write_text(_templates().get_template("report.html.j2").render(context), encoding="utf-8")
    assert path.stat().st_size < 17e6
    browser.events.clear()
    browser.open(path)
    assert len(column(browser, "freeze")) == contents.FIRST_ROWS
    milliseconds = browser.js("""(() => {
        const search = document.querySelector("#search");
        return ["vgg16 norm", "vgg16", "", "0.01234"].map((text) => {
            const start = performance.now();
            search.value = text;
            search.dispatchEvent(new Event("input", { bubbles: true }));
            document.querySelector("#rows").offsetHeight;  // the layout counts
            return performance.now() - start;
        });
    })()""")
    print(f"filtering 10,000 configurations took {[round(ms) for ms in milliseconds]} ms, {path.stat().st_size} bytes")
    assert min(milliseconds) < 500
    opened_rows = browser.js("""(() => {
        document.querySelector("form.controls button[type=reset]").click();
        return new Promise((done) => setTimeout(() => {
            document.querySelector("#more button").click();
            done(document.querySelectorAll("#rows tbody tr").length);
        }, 200));
    })()""")
    assert opened_rows == 10_000
    assert browser.errors() == []


def test_printing_shows_the_table_and_hides_the_controls(browser, report, tmp_path):
    browser.open(report)
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.js("getComputedStyle(document.querySelector('form.controls')).display") == "none"
        assert browser.js("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
        assert browser.js("getComputedStyle(document.body).backgroundColor") in ("rgb(255, 255, 255)",)
        browser.pdf(tmp_path / "report.pdf")
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
    assert (tmp_path / "report.pdf").stat().st_size > 50_000


def test_without_javascript_the_table_and_the_verdict_are_there(browser, report):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.call("Page.navigate", url=report.as_uri())
        time.sleep(1)
        root = browser.call("DOM.getDocument", depth=-1)
        text = json.dumps(root)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert "Most accurate" in text
    assert text.count('"nodeName": "TR"') > 50
