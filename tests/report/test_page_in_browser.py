"""The page of the per-class report in a real browser: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwdkit.measure.types import ClassDivergence, ClassRow, Example, ModelSummary, PerClassReport
from hwdkit.report.html.page import per_class_page

playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium: apt-get install chromium")

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "a \"double\" and a 'single' quote",
    "swimming_pool_natatorium_and_everything_else_of_sixty_letters",
    "שלום עולם",
    "right\u202eto left",
)
ROLES = {
    "R101 <b>": "teacher",
    "plain": "baseline",
    "a_network_with_a_rather_long_name": "compare",
    "hwd": "student",
}
PHONE, DESKTOP = 390, 1280
Open = Callable[..., Any]


def made_up(names: tuple[str, ...], *, examples: int = 2) -> PerClassReport:
    """A report with every part: the student is right on more pixels, the higher the class's index."""
    dice = np.random.default_rng(0)
    classes = len(names)
    matrices = {name: dice.integers(0, 3, (classes, classes)) ** 6 for name in ROLES}
    for number, matrix in enumerate(matrices.values()):
        matrix[np.diag_indices(classes)] = 100 * (np.arange(classes) + 1) + number
    rows = []
    for index, name in enumerate(names):
        found = {
            model: ClassDivergence(
                1e-6 * (index + 1), 1e-7, 10.0 + index, 0.5 + index, (index % 7) / 3, images=2
            )
            for model in list(ROLES)[1:]
        }
        own = found["hwd"]
        iou = {model: (index + 1) / (classes + 1) - 0.001 * number for number, model in enumerate(ROLES)}
        rows.append(
            ClassRow(name, (40 * index % 256, 90, 200), 1 / classes, iou, own.td, own.ntd, own.ratio,
                     own.weight, image_ratio=own.image_ratio, ratio_images=2, divergences=found)
        )  # fmt: skip
    rows[-1] = ClassRow(names[-1], (1, 2, 3), 0.0, dict.fromkeys(ROLES, math.nan))
    maps = {name: dice.integers(0, classes, (24, 48), dtype=np.uint8) for name in (*ROLES, "label")}
    label = maps.pop("label")
    image = dice.integers(0, 256, (24, 48, 3), dtype=np.uint8)
    return PerClassReport(
        "scenes", "val", 500, 4.0, "activation", "present", ("hwd", "R101 <b>"),
        tuple(
            ModelSummary(name, role, f"runs/{'deep/' * 12}{name}.safetensors", 13_610_000, 9.5, 0.6, 0.7, 0.9)  # type: ignore[arg-type]
            for name, role in ROLES.items()
        ),
        tuple(rows),
        tuple(Example(f"val/{HOSTILE[0]}{i}", 24, 48, image, label, maps, 0.8) for i in range(examples)),
        (HOSTILE[0],), "f" * 64,
        confusions={name: tuple(map(tuple, matrix.tolist())) for name, matrix in matrices.items()},
    )  # fmt: skip


@pytest.fixture(scope="module")
def tab() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        except playwright.Error:
            if subprocess.run([str(BROWSER), "--version"], check=False, timeout=30).returncode:
                pytest.skip(f"{BROWSER} is there, but does not run")  # Ubuntu's only says where the snap is
            raise
        yield browser.new_page()
        browser.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "page.html"
    path.write_text(per_class_page(made_up((*HOSTILE, "road", "sky", "absent"))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "page.html"
    names = tuple(f"{'category' if index % 3 else 'swimming pool of a kind'} {index}" for index in range(150))
    path.write_text(per_class_page(made_up(names, examples=1)), encoding="utf-8")
    return path


@pytest.fixture
def opened(tab: Any) -> Iterator[Open]:
    """Opens a page; whatever it asked the network for, or said in the console, fails the test."""
    said: list[str] = []
    asked: list[str] = []
    listeners = {
        "console": lambda message: said.append(message.text),
        "pageerror": lambda error: said.append(str(error)),
        "request": lambda request: asked.append(request.url),
    }

    def open_page(path: Path, width: int = DESKTOP, scheme: str = "light") -> Any:
        tab.set_viewport_size({"width": width, "height": 800})
        tab.emulate_media(color_scheme=scheme)
        tab.goto(path.as_uri())
        asked.remove(path.as_uri())
        return tab

    for event, listener in listeners.items():
        tab.on(event, listener)
    yield open_page
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == []


CLASSES = ".scroll[aria-labelledby=table]"


def column(page: Any, place: int) -> list[str]:
    cells = page.locator(f"{CLASSES} tbody tr > :nth-child({place + 1})")
    return [text.strip() for text in cells.all_text_contents()]


@pytest.mark.parametrize("report", ["small", "large"])
def test_only_boxes_scroll_sideways_and_never_the_page(
    opened: Open, request: pytest.FixtureRequest, report: str
) -> None:
    page = opened(request.getfixturevalue(report))
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    for width in (PHONE, DESKTOP):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        boxes = page.locator(".scroll, .matrix").evaluate_all(
            "all => all.map((one) => [one.getBoundingClientRect().width, one.scrollWidth > one.clientWidth])"
        )
        assert len(boxes) == 4
        assert all(wide <= width for wide, _ in boxes)
        assert width == DESKTOP or all(scrolls for _, scrolls in boxes)


CONTRASTS = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = numbers(colour).map((v) => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (numbers(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const element of document.querySelectorAll("body *:not(script)")) {
    const own = [...element.childNodes].filter((node) => node.nodeType === 3);
    const text = own.map((node) => node.data.trim()).join("");
    if (!text || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(element instanceof SVGElement ? style.fill : style.color), light(behind(element))];
    found.push([text.slice(0, 40), (Math.max(a, b) + .05) / (Math.min(a, b) + .05)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_background(opened: Open, small: Path, scheme: str) -> None:
    page = opened(small, scheme=scheme)
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 200
    assert [one for one in contrasts if one[1] < 4.5] == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) > 384) == (scheme == "light")


def test_the_button_turns_the_page_dark_and_light_again(opened: Open, small: Path) -> None:
    page = opened(small)
    colours = []
    for _ in range(3):
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.locator("#theme").click()
    assert colours[0] != colours[1]
    assert colours[0] == colours[2]


def test_names_are_text_whatever_they_say(opened: Open, small: Path) -> None:
    page = opened(small)
    assert column(page, 0) == [*HOSTILE, "road", "sky", "absent"]
    assert page.locator("img[src=x]").count() == 0
    page.locator("#matrix .field").focus()
    for _ in range(2):
        page.keyboard.press("ArrowDown")
    assert HOSTILE[1] in page.locator("#readout").text_content()
    page.locator(".example .stack").first.click()
    assert HOSTILE[0] in page.locator("#viewer-title").text_content()


def test_a_click_sorts_downwards_then_upwards_then_not(opened: Open, small: Path) -> None:
    page = opened(small)
    before, button = column(page, 0), page.locator(f"{CLASSES} thead button").nth(5)
    states = []
    for _ in range(3):
        button.click()
        cell = button.locator("xpath=..")
        states.append((cell.get_attribute("aria-sort"), column(page, 0)))
    assert states[0] == ("descending", [*reversed(before[:-1]), before[-1]])  # the unknown stays last
    assert states[1] == ("ascending", before)
    assert states[2] == ("none", before)


def test_keys_sort_every_table_and_focus_stays_visible(opened: Open, small: Path) -> None:
    page = opened(small)
    for box in page.locator(".scroll").all():
        rows = box.locator("tbody tr")
        orders = [rows.all_text_contents()]
        box.focus()
        for key in ("Enter", "Space"):
            page.keyboard.press("Tab")
            outline = page.evaluate("getComputedStyle(document.activeElement).outline")
            assert "solid 2px" in outline
            page.keyboard.press(key)
            orders.append(rows.all_text_contents())
        assert orders[0] != orders[1] != orders[2]
        assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
        assert box.locator("[aria-sort=ascending], [aria-sort=descending]").count() == 1


def test_the_first_tab_offers_to_skip_to_the_numbers(opened: Open, small: Path) -> None:
    page = opened(small)
    page.keyboard.press("Tab")
    page.wait_for_function("document.activeElement.getBoundingClientRect().top >= 0")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert (
        page.evaluate("document.activeElement.closest('section').getAttribute('aria-labelledby')") == "table"
    )


def test_every_picture_decodes(opened: Open, small: Path) -> None:
    page = opened(small)
    sizes = page.evaluate("[...document.images].map((one) => one.naturalWidth)")
    assert sizes == [48] * 12
    inner = page.evaluate(
        """() => {
          const all = [...document.querySelectorAll("svg image, .tile:first-child .stack")];
          return Promise.all(all.map(async (one) => {
            const picture = new Image();
            picture.src = one.getAttribute("href") ?? getComputedStyle(one).backgroundImage.slice(5, -2);
            await picture.decode();
            return picture.naturalWidth;
          }));
        }"""
    )
    assert inner == [9] * 4 + [48] * 2


def test_the_matrix_says_the_cell_that_is_pointed_at(opened: Open, small: Path) -> None:
    page, counts = opened(small), made_up((*HOSTILE, "road", "sky", "absent")).confusions
    field, readout = page.locator("#matrix .field"), page.locator("#readout")
    side = field.bounding_box()["width"] / 9
    field.hover(position={"x": 7.5 * side, "y": 6.5 * side})
    line = counts["hwd"][6]
    share = f"{100 * line[7] / sum(line):.2f} % of its pixels, {line[7]:,} of {sum(line):,}"
    assert readout.text_content() == f"road taken for sky by hwd: {share}"
    field.focus()
    page.keyboard.press("ArrowLeft")
    page.locator("input[name=matrix]").first.focus()
    page.keyboard.press("ArrowRight")  # from the teacher to the baseline
    line = counts["plain"][6]
    assert f"road found by plain: {100 * line[6] / sum(line):.2f} %" in readout.text_content()
    assert page.locator("#matrix svg:visible").count() == 1
    shown = page.locator("#matrix svg").evaluate_all("all => all.findIndex((one) => one.checkVisibility())")
    assert shown == 1


def test_the_viewer_switches_maps_and_images_by_key(opened: Open, small: Path) -> None:
    page = opened(small)
    page.locator(".example .stack").nth(1).focus()
    page.keyboard.press("Enter")
    title = page.locator("#viewer-title")
    assert title.text_content() == f"ground truth, val/{HOSTILE[0]}0"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert title.text_content() == f"R101 <b>, val/{HOSTILE[0]}1"
    assert page.locator("#maps [aria-pressed=true]").text_content() == "R101 <b>"
    assert page.locator(".stage img").evaluate("one => one.naturalWidth") == 48
    page.keyboard.press("Escape")
    assert page.locator("#viewer").is_hidden()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(
        "Enlarge ground truth"
    )


def test_the_page_of_150_classes_is_small_and_its_parts_can_be_found(opened: Open, large: Path) -> None:
    assert large.stat().st_size < 4e6
    page = opened(large, PHONE)
    page.locator(".tools:has(+ .scroll[aria-labelledby=table]) .filter").fill("POOL OF A KIND 12")
    assert page.locator(f"{CLASSES} tbody tr:visible th").all_text_contents()[0].strip().endswith("kind 12")
    assert page.locator(f"{CLASSES} tbody tr:visible").count() == 5  # 12, 120, 123, 126, 129
    assert page.locator("[aria-labelledby=iou] .line[role=listitem]:visible").count() == 24
    page.locator("[aria-labelledby=iou] summary").click()
    assert page.locator("[aria-labelledby=iou] .line[role=listitem]:visible").count() == 150
    matrix = page.locator("#matrix")
    matrix.locator(".field").focus()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    assert matrix.evaluate("box => box.scrollLeft > 0 && box.clientWidth < box.scrollWidth")
    cursor, box = matrix.locator(".cursor").bounding_box(), matrix.bounding_box()
    assert box["x"] <= cursor["x"] <= box["x"] + box["width"] - cursor["width"]
