"""A headless Chromium: what it shows of a file, what it complains of, what it asks for."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait


class Browser:
    """One page at a time, shown by Selenium's `driver`."""

    def __init__(self, driver: webdriver.Chrome):
        self.driver = driver

    def open(self, path: Path, *, width: int = 1280, dark: bool = False, touch: bool = False):
        """Opens a file, and waits until all of its figures are drawn."""
        command = self.driver.execute_cdp_cmd
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": touch}
        command("Emulation.setDeviceMetricsOverride", size)
        command("Emulation.setTouchEmulationEnabled", {"enabled": touch})
        self.prefer("dark" if dark else "light")
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # what came before
        self.driver.get(path.absolute().as_uri())
        self.until("return document.documentElement.dataset.drawn !== undefined")

    def prefer(self, scheme: str) -> None:
        """Has the system prefer "light" or "dark"."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def run(self, script: str, *arguments):
        """Returns what a script returns."""
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, *arguments) -> None:
        """Waits until a script returns something true."""
        WebDriverWait(self.driver, 120).until(lambda _: self.run(script, *arguments))

    def complaints(self) -> list[str]:
        """Returns what stands in the console: errors, refused requests and the like."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Returns all addresses that were asked for since the page was opened."""
        log = self.driver.get_log("performance")
        events = [json.loads(entry["message"])["message"] for entry in log]
        requests = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [parameters["request"]["url"] for parameters in requests]


def started() -> Iterator[Browser]:
    """Yields a browser; skips where there is none, unless CI=true: there it must not be."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    chromedriver = shutil.which("chromedriver")
    if program is None or chromedriver is None:
        missing = "no Chromium with chromedriver (Debian: apt-get install chromium chromium-driver)"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    # Chromium has no sandbox for root, and containers have little shared memory.
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(chromedriver))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
