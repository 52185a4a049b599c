"""The report in a real browser: headless Chromium, driven by Selenium; skipped where one of them is not there."""

import shutil
from collections.abc import Iterator

import pytest
from helpers import finished_pipeline
from helpers.reports import EVIL, make

selenium = pytest.importorskip("selenium", reason="selenium drives the browser: pip install -e '.[dev]'")

from selenium.webdriver import Chrome, ChromeOptions, ChromeService  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver")

NAMES = [
    "Field poppy",
    "Ox-eye daisy",
    "Bluebell",
    "Marsh marigold",
    EVIL,
    "</script><script>document.title=1</script>",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Chrome, str]]:
    root = tmp_path_factory.mktemp("world")
    finished_pipeline.build(root, NAMES)
    with pytest.MonkeyPatch.context() as patch:
        make(root, patch)
    options = ChromeOptions()
    options.binary_location = BROWSER or ""
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, ChromeService(DRIVER))
    yield driver, (root / "report/index.html").as_uri()
    driver.quit()


@pytest.fixture
def page(browser: tuple[Chrome, str]) -> Chrome:
    """The page as it is first seen."""
    driver, url = browser
    driver.set_window_size(1200, 900)
    driver.get("about:blank")  # from the same page, a URL is only a jump
    driver.get(url)
    return driver


def shown(page: Chrome, selector: str) -> list[WebElement]:
    return [element for element in page.find_elements(By.CSS_SELECTOR, selector) if element.is_displayed()]


def names(page: Chrome) -> list[str]:
    return [row.find_element(By.TAG_NAME, "th").text for row in shown(page, "#class-table tbody tr")]


def test_no_error_reaches_the_console_and_no_name_runs(page: Chrome) -> None:
    assert page.get_log("browser") == []
    assert page.title == "LTGC report: folder"
    for name in NAMES:
        assert name in names(page)
    assert page.find_elements(By.CSS_SELECTOR, "[src=x]") == []


def test_classes_are_found_by_name_and_by_shot_group(page: Chrome) -> None:
    assert len(names(page)) == len(shown(page, "details.class")) == 6
    page.find_element(By.ID, "find").send_keys("BLUE")
    assert names(page) == ["Bluebell"]
    assert [d.get_attribute("data-name") for d in shown(page, "details.class")] == ["Bluebell"]
    assert page.find_element(By.ID, "found").text == "1 class"
    page.find_element(By.ID, "find").clear()
    page.find_element(By.CSS_SELECTOR, "input[value=few]").click()
    assert names(page) == NAMES[:3]


def test_a_table_is_sorted_by_the_column_that_is_asked_for(page: Chrome) -> None:
    training = page.find_element(By.XPATH, "//table[@id='class-table']//th[button='Training']")
    button = training.find_element(By.TAG_NAME, "button")
    assert training.get_attribute("aria-sort") == "descending" and names(page) == NAMES  # as it comes
    button.click()
    assert training.get_attribute("aria-sort") == "ascending" and names(page) == NAMES[::-1]
    button.send_keys("\n")  # from the keyboard
    assert training.get_attribute("aria-sort") == "descending" and names(page) == NAMES
    page.find_element(By.XPATH, "//table[@id='class-table']//button[.='Class']").click()
    assert training.get_attribute("aria-sort") is None
    assert names(page)[-4:] == ["Bluebell", "Field poppy", "Marsh marigold", "Ox-eye daisy"]


def test_fold_outs_open_by_click_by_link_and_all_at_once(page: Chrome) -> None:
    rarest = page.find_element(By.CSS_SELECTOR, "details.class")
    assert rarest.get_attribute("data-train") == "4" and not shown(page, "details.class img")
    rarest.find_element(By.TAG_NAME, "summary").click()
    images = shown(page, "details.class img")
    assert images
    WebDriverWait(page, 10).until(lambda _: all(image.get_property("naturalWidth") for image in images))  # lazily
    page.find_element(By.LINK_TEXT, "Bluebell").click()
    opened = page.find_elements(By.CSS_SELECTOR, "details.class[open]")
    assert [d.get_attribute("data-train") for d in opened] == ["4", "30"]
    page.find_element(By.ID, "unfold").click()
    assert len(page.find_elements(By.CSS_SELECTOR, "details.class[open]")) == 6
    page.find_element(By.CSS_SELECTOR, "#order [value=many]").click()
    assert shown(page, "details.class")[0].get_attribute("data-name") == NAMES[0]


def test_without_the_script_everything_can_still_be_read(page: Chrome) -> None:
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.refresh()
        assert not page.find_element(By.ID, "controls").is_displayed()
        assert len(names(page)) == 6
        page.find_element(By.CSS_SELECTOR, "details.class summary").click()
        assert shown(page, "details.class img")
    finally:
        page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_on_a_phone_the_page_itself_does_not_scroll_sideways(page: Chrome) -> None:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.find_element(By.ID, "unfold").click()
        assert page.execute_script("return document.documentElement.scrollWidth") == 390
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
