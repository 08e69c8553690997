"""An HTML report as a picture, by a browser that is installed. Nothing is downloaded for it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZE = "1100,1000"
TIMEOUT_S = 60.0


def take(report: Path, path: Path) -> str:
    """Write the top of `report` as PNG; what there is to say when there is no browser, or ""."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return f"no picture of the report: none of {', '.join(BROWSERS)} is installed"
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
    try:
        subprocess.run(
            [browser, *flags, f"--window-size={SIZE}", f"--screenshot={path}", report.as_uri()],
            capture_output=True,
            timeout=TIMEOUT_S,
            check=True,
        )
    except subprocess.SubprocessError as error:  # what was measured is worth more than its picture
        return f"no picture of the report: {type(error).__name__} of {browser}"
    return ""
