// Curves of a run: asks for the next piece of its log again and again, and draws what has come.
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
  const known = { train: { kimg: [] }, scores: { kimg: [] } };
  const drawn = new Map();
  let file = 0;
  let after = 0;

  // Append a piece. After a resume, its first steps replace those that were known.
  function take(piece) {
    for (const kind of Object.keys(known)) {
      const columns = known[kind];
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
    file = piece.file;
    after = piece.after;
  }

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function options(figure, width) {
    const short = (_, values) => values.map((value) => (value === null ? "" : String(Number(value.toPrecision(4)))));
    const axis = { values: short, stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const series = Object.values(figure.names).map((label, index) => ({
      label,
      stroke: colour(`--c${index}`),
      width: 1.6,
      dash: index ? [8, 4] : [],
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

  function draw() {
    for (const figure of FIGURES) {
      const columns = known[figure.kind];
      const names = Object.keys(figure.names).filter((name) => columns[name]?.some((value) => value !== null));
      if (!names.length) continue;
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
      const data = [columns.kimg, ...Object.keys(figure.names).map((name) => columns[name] ?? [])];
      if (place.chart) place.chart.setData(data);
      else place.chart = new uPlot(options(figure, place.plot.clientWidth), data, place.plot);
      const last = names.map((name) => `${figure.names[name]} ${columns[name].findLast((v) => v !== null).toPrecision(4)}`);
      const text = `At ${columns.kimg.at(-1)} kimg: ${last.join(", ")}.`;
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

  async function step() {
    let wait = document.querySelector("#now .state.running") ? 4000 : 20000;
    try {
      const answer = await fetch(`${box.dataset.address}&file=${file}&after=${after}`);
      if (!answer.ok) throw new Error(await answer.text());
      const piece = await answer.json();
      if (piece.again || piece.curves.train.kimg.length || piece.curves.scores.kimg.length) {
        take(piece);
        draw();
        requestAnimationFrame(point);
      }
      if (piece.more) wait = 0;
      say(known.train.kimg.length ? "" : "Nothing has been logged yet.");
    } catch {
      say("The studio does not answer. Trainings go on without it; start it again to look at them.");
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
