"""Draw the Mermaid diagrams of the documents as SVG, so that the site needs no script and no network.

    npm pack mermaid@12.3.0 && tar xzf mermaid-12.3.0.tgz
    python docs/_site/draw_diagrams.py package/dist/mermaid.min.js [--browser chromium]

Each diagram becomes `docs/diagrams/PAGE-N.svg`, which begins with the SHA-256 of its source. `diagram.py` puts it in
place of the source, and says so if the source has changed since.
"""

import argparse
import html
import re
import subprocess
import tempfile
from pathlib import Path

from diagrams import DIAGRAMS, DOCS, diagrams_of, fingerprint

PAGE = """<!doctype html><meta charset="utf-8"><div id="drawn"></div><script src="{script}"></script>
<pre id="source">{source}</pre>
<script>
mermaid.initialize({{startOnLoad: false, htmlLabels: false, fontFamily: "Arial, sans-serif", fontSize: 20,
                    flowchart: {{htmlLabels: false, curve: "basis", nodeSpacing: 22, rankSpacing: 34, padding: 8}}}});
mermaid.render("{name}", document.getElementById("source").textContent)
    .then(done => {{ document.getElementById("drawn").innerHTML = done.svg; }});
</script>"""

# The colours of the page around it, in light and in dark; the fallbacks are for a program that shows only the picture.
STYLE = """<style>
#{name} {{ font: 20px Arial, sans-serif; }}
#{name} text {{ fill: var(--color-foreground-primary, #111); text-anchor: middle; }}
#{name} .node rect, #{name} .node path {{ fill: var(--color-background-secondary, #f8f9fb);
  stroke: var(--color-foreground-muted, #6b6f76); stroke-width: 1px; }}
#{name} .flowchart-link {{ fill: none; stroke: var(--color-foreground-muted, #6b6f76); stroke-width: 1.3px; }}
#{name} .marker {{ fill: var(--color-foreground-muted, #6b6f76); stroke: none; }}
#{name} .edgeLabel rect, #{name} .background {{ fill: none; }}
</style>"""


def draw(source: str, name: str, script: Path, browser: str) -> str:
    """Let Mermaid draw a diagram in a browser without a window; returns the SVG with colours of its own."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        page.write_text(PAGE.format(script=script.resolve().as_uri(), source=html.escape(source), name=name), "utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
        command += ["--virtual-time-budget=20000", "--dump-dom", page.as_uri()]
        dumped = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    found = re.search(r'<div id="drawn">(<svg.*?</svg>)</div>', dumped, flags=re.S)
    if found is None:
        raise SystemExit(f"{name}: Mermaid drew nothing")
    svg = re.sub(r"<style>.*?</style>", lambda _: STYLE.format(name=name), found[1], count=1, flags=re.S)
    svg = re.sub(r' style="max-width: [\d.]+px;[^"]*"', "", svg, count=1)
    width, height = (round(float(side)) for side in re.search(r'viewBox="\S+ \S+ (\S+) (\S+)"', svg).groups())
    return svg.replace(' width="100%"', f' width="{width}" height="{height}"', 1)


def main() -> None:
    """Draw every diagram of every document again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", type=Path, help="mermaid.min.js")
    parser.add_argument("--browser", default="chromium")
    options = parser.parse_args()
    DIAGRAMS.mkdir(exist_ok=True)
    for page in sorted(DOCS.rglob("*.md")):
        for name, source in diagrams_of(page):
            svg = draw(source, name, options.script, options.browser)
            (DIAGRAMS / f"{name}.svg").write_text(f"<!-- {fingerprint(source)} -->\n{svg}\n", "utf-8")
            print(DIAGRAMS / f"{name}.svg")


if __name__ == "__main__":
    main()
