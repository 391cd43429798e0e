"""Take the pictures of docs/studio.md: the pages of a studio in a browser without a window.

    samgan studio ROOT --port 8017 --read-only --no-browser
    python docs/_site/shoot_studio.py "http://127.0.0.1:8017/?key=..." RUN [--browser chromium]

The link is the one that the studio prints. RUN is a run below ROOT, with its audit, its scores, its card and its set.
docs/pictures/README.md says which ROOT and RUN the committed pictures show.
"""

import argparse
import io
from pathlib import Path
from urllib.parse import quote

from PIL import Image, PngImagePlugin
from playwright.sync_api import Page, sync_playwright

from samgan.grids import SYNTHETIC

PICTURES = Path(__file__).parents[1] / "pictures"
WIDTH, HEIGHT = 1100, 760
"""Of the browser's window in pixels."""
SHOWN = (800, 720, 640, 560)
"""Widths of a picture in pixels: the first with which its file has at most `LARGEST` bytes."""
COLOURS = 128
"""Of a picture. With fewer, greys of X-rays turn yellow, from the banner above them."""
LARGEST = 120_000
REAL = {"compare"}
"""Pictures that show patients, too."""
PHANTOMS = {"data", "balance"}
"""Pictures of pages that are about phantoms."""
KERMANY = "Kermany, Zhang and Goldbaum (2018), doi 10.17632/rscbjbr9sj.2, CC BY 4.0, resized"
PATIENCE = 300_000
"""Milliseconds for a page whose pictures are made on demand."""


def pages(run: str) -> dict[str, tuple[str, str, str]]:
    """By name of the picture: an address, what to press, and what to wait for."""
    place = quote(run, safe="")
    return {
        "home": ("/", "", "table"),
        "data": ("/data?set=demo/data", "", "#sheet img"),
        "train": (f"/train?run={place}", "", "#curves canvas"),
        "time": (f"/time?run={place}", "", "#curves canvas"),
        "scales": (f"/time?run={place}", "#show-scales", "#inside .rows img"),
        "scores": (f"/scores?at={place}", "", "table"),
        "audit": (f"/audit?at={place}", "", ".pairs img"),
        "balance": ("/balance?at=demo/balanced", "", "table"),
        "card": (f"/card?at={place}", "", "form"),
        "table2": ("/table2?at=results/table2", "", "table"),
        "generate": (f"/generate?model={place}", "", "#made .shots img"),
        "compare": (f"/compare?model={place}", "", "#sides img"),
    }


def shoot(page: Page, start: str, address: str, press: str, wait: str) -> Image.Image:
    """What a page shows once its pictures are there, from the part that was pressed for on."""
    page.goto(start + address)
    if press:
        page.click(press)
    page.wait_for_selector(wait, timeout=PATIENCE)
    page.evaluate("Promise.all([...document.images].filter(i => i.loading !== 'lazy').map(i => i.decode()))")
    if press:
        page.evaluate("selector => document.querySelector(selector).closest('section').scrollIntoView()", press)
    page.wait_for_timeout(1000)  # curves are drawn a moment after they are there
    return Image.open(io.BytesIO(page.screenshot()))


def write(picture: Image.Image, name: str) -> None:
    """Write a picture as large as its file may be, with what it shows in its metadata."""
    text = PngImagePlugin.PngInfo()
    real = f" Real X-rays beside them: {KERMANY}." if name in REAL else ""
    shown = "Phantoms, which a formula drew." if name in PHANTOMS else f"X-rays, if there are any: {SYNTHETIC}{real}"
    text.add_text("Description", f"A page of samgan studio. {shown}")
    for width in SHOWN:
        size = width, width * picture.height // picture.width
        small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        file = io.BytesIO()
        small.quantize(COLOURS, dither=Image.Dither.NONE).save(file, "PNG", optimize=True, pnginfo=text)
        if file.tell() <= LARGEST:
            break
    (PICTURES / f"studio-{name}.png").write_bytes(file.getvalue())


def main() -> None:
    """Write docs/pictures/studio-NAME.png for each page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("link", help="the link that samgan studio printed")
    parser.add_argument("run", help="a run below its folder")
    parser.add_argument("--browser", default="/usr/bin/chromium", help="the program")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of pictures to take; default: all")
    options = parser.parse_args()
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=options.browser, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        start = options.link.partition("/?")[0]
        page.goto(options.link)
        page.wait_for_url(start + "/")
        for name, (address, press, wait) in pages(options.run).items():
            if options.only and name not in options.only:
                continue
            write(shoot(page, start, address, press, wait), name)
        browser.close()


if __name__ == "__main__":
    main()
