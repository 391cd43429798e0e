// Curves of one run, or of several over each other: asks for the next piece of each log again and again, and draws.
"use strict";
(() => {
  const box = document.getElementById("curves");
  if (!box) return; // a run without snapshots has no slider and no curves there
  const words = document.getElementById("curves-words");
  const FIGURES = [
    { kind: "train", title: "Losses", names: { loss_discriminator: "discriminator", loss_generator: "generator" } },
    { kind: "scores", title: "Quick score: lower is better", names: { quick_score: "quick score" } },
    {
      kind: "scores",
      title: "How alike pairs of images are (MS-SSIM)",
      names: { ms_ssim_generated: "generated", ms_ssim_real: "real" },
    },
    {
      kind: "train",
      title: "Length of the gradients",
      names: { gradient_discriminator: "discriminator", gradient_generator: "generator" },
    },
    { kind: "train", title: "Images per second", names: { images_per_second: "images/s" } },
    { kind: "train", title: "Share of augmented images", names: { augment: "augmented" } },
  ];
  const HEIGHT = 240;
  const COLOURS = 5;
  const DASHES = [[], [8, 4], [2, 4]];
  const runs = JSON.parse(box.dataset.runs).map(([name, address]) => ({
    name,
    address,
    known: { train: { kimg: [] }, scores: { kimg: [] } },
    file: 0,
    after: 0,
  }));
  const together = runs.length > 1;
  const drawn = new Map();

  // Of one run, a figure has several numbers; of several runs, one number of each.
  function figures() {
    if (!together) {
      const lines = ({ names }) => Object.entries(names).map(([name, label]) => ({ run: runs[0], name, label }));
      return FIGURES.map((figure) => ({ ...figure, lines: lines(figure) }));
    }
    return FIGURES.flatMap(({ kind, title, names }) =>
      Object.entries(names).map(([name, label], _, all) => ({
        kind,
        title: all.length > 1 ? `${title}: ${label}` : title,
        lines: runs.map((run) => ({ run, name, label: run.name })),
      })),
    );
  }

  // Append a piece. After a resume, its first steps replace those that were known.
  function take(run, piece) {
    for (const kind of Object.keys(run.known)) {
      const columns = run.known[kind];
      const added = piece.curves[kind];
      if (piece.again) for (const name of Object.keys(columns)) columns[name] = [];
      if (!added.kimg.length) continue;
      let length = columns.kimg.length;
      while (length && columns.kimg[length - 1] >= added.kimg[0]) length--;
      for (const name of new Set([...Object.keys(columns), ...Object.keys(added)])) {
        const before = (columns[name] ?? []).slice(0, length);
        while (before.length < length) before.push(null);
        columns[name] = before.concat(added[name] ?? added.kimg.map(() => null));
      }
    }
    run.file = piece.file;
    run.after = piece.after;
  }

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function options(figure, width) {
    const short = (_, values) => values.map((value) => (value === null ? "" : String(Number(value.toPrecision(4)))));
    const axis = { values: short, stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const series = figure.lines.map(({ label }, index) => ({
      label,
      stroke: colour(`--c${index % COLOURS}`),
      width: 1.6,
      dash: DASHES[(together ? Math.floor(index / COLOURS) : index) % DASHES.length],
      spanGaps: true,
    }));
    return {
      width,
      height: HEIGHT,
      scales: { x: { time: false } },
      axes: [{ ...axis, size: 36 }, { ...axis, size: 64 }],
      series: [{ label: "kimg" }, ...series],
      cursor: { sync: { key: "run" }, drag: { x: true, y: false }, y: false },
    };
  }

  const column = (kind, { run, name }) => run.known[kind][name] ?? run.known[kind].kimg.map(() => null);

  function columns({ kind, lines }) {
    if (!together) return [runs[0].known[kind].kimg, ...lines.map((line) => column(kind, line))];
    return uPlot.join(lines.map((line) => [line.run.known[kind].kimg, column(kind, line)]));
  }

  function draw() {
    for (const figure of figures()) {
      const shown = figure.lines.filter((line) => column(figure.kind, line).some((value) => value !== null));
      if (!shown.length) continue;
      let place = drawn.get(figure.title);
      if (!place) {
        const element = document.createElement("figure");
        const heading = element.appendChild(document.createElement("h3"));
        heading.textContent = figure.title;
        const plot = element.appendChild(document.createElement("div"));
        plot.className = "plot";
        plot.setAttribute("role", "img");
        const caption = element.appendChild(document.createElement("figcaption"));
        box.append(element);
        place = { plot, caption, chart: null };
        drawn.set(figure.title, place);
        new ResizeObserver(() => place.chart?.setSize({ width: plot.clientWidth, height: HEIGHT })).observe(element);
      }
      const data = columns(figure);
      if (place.chart) place.chart.setData(data);
      else place.chart = new uPlot(options(figure, place.plot.clientWidth), data, place.plot);
      const last = shown.map((line) => {
        const values = column(figure.kind, line);
        const at = values.findLastIndex((value) => value !== null);
        const kimg = together ? ` (${line.run.known[figure.kind].kimg[at]} kimg)` : "";
        return `${line.label} ${values[at].toPrecision(4)}${kimg}`;
      });
      const text = together ? `Last: ${last.join(", ")}.` : `At ${data[0].at(-1)} kimg: ${last.join(", ")}.`;
      if (place.caption.textContent !== text) place.caption.textContent = text;
      place.plot.setAttribute("aria-label", `${figure.title}, over thousands of images seen. ${text}`);
    }
  }

  // On the page of the slider, the cursor of all figures stands at the snapshot that is shown.
  function point() {
    const kimg = Number(document.getElementById("frame")?.dataset.kimg ?? NaN);
    if (Number.isNaN(kimg)) return;
    for (const { chart } of drawn.values()) chart?.setCursor({ left: chart.valToPos(kimg, "x"), top: 0 }, false);
  }

  function say(text) {
    if (words.textContent !== text) words.textContent = text;
    words.hidden = !text;
  }

  // Ask for the next piece of one log; whether there is more already.
  async function next(run) {
    const answer = await fetch(`${run.address}&file=${run.file}&after=${run.after}`);
    if (!answer.ok) throw new Error(await answer.text());
    const piece = await answer.json();
    const news = piece.again || piece.curves.train.kimg.length || piece.curves.scores.kimg.length;
    if (news) take(run, piece);
    return { news, more: piece.more };
  }

  async function step() {
    let wait = together || document.querySelector("#now .state.running") ? 4000 : 20000;
    try {
      const found = [];
      for (const run of runs) found.push(await next(run));
      if (found.some(({ news }) => news)) {
        draw();
        requestAnimationFrame(point);
      }
      if (found.some(({ more }) => more)) wait = 0;
      const silent = runs.filter((run) => !run.known.train.kimg.length).map((run) => run.name);
      if (together) say(silent.length ? `Nothing has been logged yet: ${silent.join(", ")}.` : "");
      else say(silent.length ? "Nothing has been logged yet." : "");
    } catch {
      say("The studio sent no newer part of the curves.");
      document.dispatchEvent(new Event("samgan:failed"));
      wait = 5000;
    }
    setTimeout(step, document.hidden ? Math.max(wait, 20000) : wait);
  }

  // Other colours for a dark screen.
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const place of drawn.values()) {
      place.chart?.destroy();
      place.chart = null;
    }
    draw();
    requestAnimationFrame(point);
  });
  document.body.addEventListener("htmx:afterSwap", point);
  step();
})();
