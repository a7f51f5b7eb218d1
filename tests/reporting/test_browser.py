"""The page in a real browser: headless Chromium, driven through its WebDriver."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from nip_audio.reporting.escaping import visible
from nip_audio.reporting.examine import Examiner
from nip_audio.reporting.report import write_report
from nip_audio.screening.records import Finding, ScreenRecord
from nip_audio.screening.sources import FolderSource

pytestmark = [
    pytest.mark.slow,
    # a driver that is thrown away while its pipe is open warns
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage"),
)
PHONE, DESKTOP = (360, 740), (1280, 900)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium is not installed: pip install selenium"
    )
    from selenium.webdriver.chrome.service import Service

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    yield started
    started.quit()


class Page:
    """What the tests do with a page."""

    def __init__(self, browser, path, size=DESKTOP):
        self.browser = browser
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get("about:blank")  # the same page with another #… would not be loaded anew
        browser.get(path.as_uri())
        # on a busy machine the driver may come back before the old page is gone
        self.until(
            "location.href === arguments[0] && document.readyState === 'complete'", path.as_uri()
        )

    def js(self, code, *arguments):
        return self.browser.execute_script(f"return {code}", *arguments)

    def until(self, code, *arguments):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 30).until(lambda _: self.js(code, *arguments))

    def click(self, selector):
        self.js("document.querySelector(arguments[0]).click()", selector)

    def press(self, key):
        self.browser.switch_to.active_element.send_keys(key)

    def names(self):
        return self.js("[...document.querySelectorAll('#files-table tbody a')].map(a => a.text)")

    def column(self, place):
        cells = "[...document.querySelectorAll('#files-table tbody tr')]"
        return self.js(f"{cells}.map(row => row.cells[{place}].textContent)")

    def count(self):
        return self.js("document.querySelector('#files-table output').textContent")

    def errors(self):
        return [entry["message"] for entry in self.browser.get_log("browser")]

    def fits(self):
        """Whether nothing has to be scrolled sideways: the page, a table, the open panel."""
        return self.js("document.documentElement.scrollWidth <= innerWidth") and self.js(
            "[...document.querySelectorAll('dialog, .sheet')].every("
            "box => box.scrollWidth <= box.clientWidth)"
        )


@pytest.fixture
def large(write_run, many_records):
    return write_report(write_run(many_records(10_000)), None, None)


@pytest.fixture
def hostile(write_run, hostile_records, tmp_path):
    return write_report(write_run(hostile_records), FolderSource(tmp_path), None)


def test_ten_thousand_rows_are_sorted_filtered_searched_and_turned(browser, large):
    page = Page(browser, large)
    assert page.count() == "1–50 of 10,000"
    assert page.column(2)[:2] == ["adversarial"] * 2  # the gravest come first

    page.click("#files-table thead th:nth-child(4) button")
    distances = list(map(float, page.column(3)))
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 2.5
    page.click("#files-table thead th:nth-child(4) button")
    distances = list(map(float, page.column(3)))
    assert distances == sorted(distances)
    sorts = "[...document.querySelectorAll('#files-table th')].map(t => t.ariaSort)"
    assert page.js(sorts).count("ascending") == 1

    page.click("#verdicts button:nth-child(3)")
    assert page.count() == "1–50 of 100"
    assert set(page.column(2)) == {"adversarial"}
    page.click("#files-table .pager button:nth-of-type(4)")
    assert page.count() == "51–100 of 100"
    page.click("#verdicts button:nth-child(1)")

    browser.find_element("id", "search").send_keys("s00042 take")
    page.until("document.querySelector('#files-table output').textContent === '1–10 of 10'")
    assert {name[:6] for name in page.names()} == {"s00042"}
    browser.find_element("id", "search").send_keys(" nothing like it")
    page.until("document.querySelector('#files-table .empty') !== null")
    page.click("#speakers-table tbody button")
    assert page.count().startswith("1–10 of 10 (speaker s0")
    assert page.errors() == []


def test_a_file_is_opened_and_left_with_the_keyboard(browser, large):
    from selenium.webdriver.common.keys import Keys

    page = Page(browser, large)
    first, second = page.names()[:2]
    page.js("document.querySelector('#files-table tbody a').focus()")
    page.press(Keys.ENTER)
    title = "document.querySelector('#panel-title').textContent"
    page.until(f"document.querySelector('dialog').open && {title} === arguments[0]", first)
    page.press(Keys.ARROW_RIGHT)
    page.until(f"{title} === arguments[0]", second)
    assert "What to do: do not enrol it" in page.js("document.querySelector('dialog').textContent")
    assert page.js("document.querySelector('dialog').contains(document.activeElement)")
    page.press(Keys.ESCAPE)
    page.until("!document.querySelector('dialog').open")
    assert page.js("document.activeElement.text") == second
    assert "#" not in browser.current_url
    browser.get(f"{large.as_uri()}#file=7")
    page.until(f"document.querySelector('dialog').open && {title}.includes('00007')")
    assert page.errors() == []


def test_names_are_shown_and_do_nothing(browser, hostile, hostile_names):
    page = Page(browser, hostile)
    expected = {visible(f"{name}/{name}") for name in hostile_names}
    assert {name for name in page.names()} == {" ".join(name.split()) for name in expected}
    for place in range(len(hostile_names)):
        page.js(f"location.hash = '#file={place}'")
        page.until(
            "document.querySelector('#panel-title').textContent === arguments[0]",
            visible(f"{hostile_names[place]}/{hostile_names[place]}"),
        )
        assert page.js("document.querySelector('dialog p a').protocol") == "file:"
    assert page.js("typeof hacked") == "undefined"
    assert page.js("document.querySelectorAll('#files-table img, dialog img').length") == 0
    assert page.errors() == []


def test_the_policy_lets_nothing_out_and_nothing_in(browser, hostile):
    page = Page(browser, hostile)
    assert page.js("performance.getEntriesByType('resource').length") == 0
    blocked = page.browser.execute_async_script(
        "const done = arguments[0];"
        "document.addEventListener('securitypolicyviolation', e => done(e.effectiveDirective));"
        "const image = new Image(); image.src = 'https://example.org/x.png';"
    )
    assert blocked == "img-src"
    page.js("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"hacked=1\">')")
    assert page.js("typeof hacked") == "undefined"
    page.errors()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_is_wider_than_the_screen_or_too_faint(browser, hostile, size, scheme):
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    page = Page(browser, hostile, size)
    assert page.fits()
    page.js("location.hash = '#file=11'")
    page.until("document.querySelector('dialog').open")
    assert page.fits()
    faint = page.js(CONTRASTS)
    assert faint
    assert {what: ratio for what, ratio in faint.items() if ratio < 4.5} == {}


CONTRASTS = """(() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/^rgba\\(.*, 0\\)$|transparent/.test(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const found = {};
  const kinds = '.verdict, .quiet, a, th, td, dt, figcaption, button';
  for (const e of document.querySelectorAll(kinds)) {
    if (e.disabled || !e.textContent || !e.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
    const what = `${e.tagName} ${e.className}`;
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found[what] = Math.min(ratio, found[what] || 99);
  }
  return found;
})()"""


def test_what_is_embedded_plays(browser, write_run, screener, folder):
    source = FolderSource(folder)
    (record,) = screener.judge_files([source.find("s0/take10.wav")])
    record = replace(record, findings=()).with_findings(Finding.of("adversarial", "for the test"))
    clean = ScreenRecord("s1/take10.wav", "s1", "clean")
    examiner = Examiner(screener.pretrained, screener.adapter, 0, screener.judge)
    page = Page(browser, write_report(write_run([record, clean]), source, examiner))
    page.click("#files-table tbody a")
    page.until("document.querySelector('dialog audio') !== null")
    page.browser.execute_script("document.querySelector('dialog audio').play()")
    page.until("document.querySelector('dialog audio').currentTime > 0.05")
    assert page.js("document.querySelector('dialog audio').duration") == pytest.approx(
        1.0, abs=0.01
    )
    assert page.js("document.querySelectorAll('dialog svg image').length") == 1
    assert page.js("document.querySelectorAll('dialog svg').length") == 4
    assert page.js("document.querySelector('.heat tbody').rows.length") > 1
    link = page.js("document.querySelector('dialog p a').href")
    assert link == (folder / "s0/take10.wav").as_uri()
    page.click("#next")
    page.until("document.querySelector('#panel-title').textContent === 's1/take10.wav'")
    assert page.js("document.querySelectorAll('dialog audio').length") == 0
    assert page.errors() == []
