"""The board's page in a browser, and how to look at it."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from patience import GUARD
from patience import until as wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WAIT = 1000 * GUARD  # milliseconds


def opened(chromium: "Browser", url: str, errors: list[str], **context: object) -> Iterator["Page"]:
    """The page while iterated over, once; its errors join `errors`."""
    view = {"viewport": {"width": 1100, "height": 900}} | context
    inside = chromium.new_context(**view)
    page = inside.new_page()
    page.set_default_timeout(WAIT)
    page.on("console", lambda m: errors.append(f"{m.text} {m.location.get('url')}") if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(error.stack or error.message))
    page.on("dialog", lambda dialog: errors.append(f"a dialog says {dialog.message!r}"))
    page.goto(url)
    page.locator(".ng-run").first.wait_for()
    yield page
    inside.close()


def until(page: "Page", expression: str) -> None:
    """Wait until JavaScript says true. (The board's Content-Security-Policy forbids Playwright's own way.)"""
    poll(page, lambda: page.evaluate(expression), f"this never became true: {expression}")


def poll(page: "Page", condition: Callable[[], bool], complaint: str) -> None:
    wait_until(condition, lambda: complaint, lambda: page.wait_for_timeout(20))


def look_at(page: "Page", name: str, tab: str = "curves") -> None:
    """Open a run in a view."""
    page.locator("[data-tab=runs]").click()
    page.get_by_role("button", name=name, exact=True).click()
    page.locator(f"[data-tab={tab}]").click()


def ink(page: "Page", selector: str, colour: str) -> int:
    """Pixels of a chart whose colour is near a CSS variable's."""
    return page.evaluate(
        """([selector, name]) => {
            const canvas = document.querySelector(selector);
            if (!canvas) return 0;
            const hex = getComputedStyle(canvas).getPropertyValue(name);
            const wanted = hex.match(/[0-9a-f]{2}/gi).map((v) => parseInt(v, 16));
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let count = 0;
            for (let i = 0; i < data.length; i += 4)
                if (data[i + 3] > 128 && wanted.every((v, c) => Math.abs(v - data[i + c]) < 12)) count++;
            return count;
        }""",
        [selector, colour],
    )


def until_drawn(page: "Page", selector: str, colour: str, least: int) -> None:
    """Wait until a chart has that much ink of a colour."""
    complaint = f"{selector} has no more than {least} pixels of {colour}"
    poll(page, lambda: ink(page, selector, colour) > least, complaint)


def window(page: "Page") -> list[float]:
    """The iterations that the large chart shows; empty while it shows all."""
    return [float(n) for n in (page.locator(".ng-main-chart .ng-chart").get_attribute("data-range") or "").split()]
