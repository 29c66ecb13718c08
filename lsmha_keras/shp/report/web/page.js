// The parts of the page; `update` changes the state and draws all of them anew.

function renderHeads() {
  const found = foundIn(0);
  const { heads } = blockStatistics(found);
  element("block-name").textContent = state.block;
  element("heads").replaceChildren(
    ...heads.map(({ clusters }, head) => {
      const { canvas } = paint(found, head, true);
      canvas.classList.toggle("enlarged", NUM_LABELS < 56);
      const button = make("button", {
        "aria-pressed": head === state.head,
        "aria-label": `Head ${head}: ${plural(clusters.length, "cluster")}`,
      });
      button.append(canvas, `${head} · ${clusters.length}`);
      button.addEventListener("click", () => update({ head }));
      return button;
    }),
  );
}

function renderStatistics() {
  const columns = [
    ["", (_, variant, i) => [make("span", { class: "swatch", style: `background:var(--line-${i})` }), variant.name]],
    ["clusters per head", (s) => format(s.clusters, 2)],
    ["labels per cluster", (s) => format(s.size, 2)],
    ["noise per head", (s) => format(s.noise, 1)],
    ["in clusters' columns", (s) => format(s.clusterNoise, 1)],
    ["heads per label", (s, _, i) => coverageRange(s.coverage, foundIn(i).missing)],
    ["SNR", (s) => formatRatio(s.snr)],
    ["readout accuracy", (_, variant) => accuracyText(variant.blocks[state.block].accuracy)],
  ];
  element("statistics").tHead.replaceChildren(
    make("tr", {}, ...columns.map(([name]) => make("th", {}, name))),
  );
  element("statistics").tBodies[0].replaceChildren(
    ...report.variants.map((variant, i) => {
      const statistics = blockStatistics(foundIn(i));
      const cells = columns.map(([, cell]) => [cell(statistics, variant, i)].flat());
      return make("tr", {}, ...cells.map((content) => make("td", {}, ...content)));
    }),
  );
}

function coverageRange(coverage, missing) {
  const measured = coverage.filter((_, label) => !missing.includes(label));
  const mean = measured.reduce((a, b) => a + b, 0) / measured.length;
  return `${mean.toFixed(2)} (${Math.min(...measured)}–${Math.max(...measured)})`;
}

const accuracyText = (value) => (value === null ? "–" : `${(100 * value).toFixed(2)} %`);

function renderCoverage() {
  const svg = element("coverage");
  const width = chartWidth(svg);
  const [height, left, bottom] = [178, 30, 6];
  const { coverage } = blockStatistics(foundIn(0));
  const other = [...blockStatistics(foundIn(state.control)).coverage].sort((a, b) => b - a);
  const order = coverage.map((_, label) => label).sort((a, b) => coverage[b] - coverage[a] || a - b);
  const top = Math.max(1, ...coverage, ...other);
  const step = (width - left) / NUM_LABELS;
  const y = (value) => height - bottom - (value / top) * (height - bottom - 10);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const bars = order.map((label, i) => {
    const x = left + i * step;
    const bar = make("g", { "data-label": label },
      make("rect", { class: "slot", x, y: 0, width: step, height: height - bottom }),
      make("rect", { class: "bar", x: x + step * 0.1, y: y(coverage[label]), width: step * 0.8,
        height: height - bottom - y(coverage[label]) }));
    bar.addEventListener("pointerenter", (event) => markLabel(label, event));
    bar.addEventListener("pointerleave", () => markLabel(null));
    return bar;
  });
  const path = other.map((value, i) => `${i ? "L" : "M"}${left + i * step} ${y(value)}h${step}`);
  const line = { d: path.join(""), fill: "none", stroke: `var(--line-${state.control})`, "stroke-width": 2 };
  svg.replaceChildren(...yAxis(top, y, left, width), ...bars,
    ...(HAS_CONTROLS ? [make("path", { ...line, "pointer-events": "none" })] : []));
  element("coverage-note").textContent = "labels, from the most to the least covered" +
    (HAS_CONTROLS ? `; line: ${report.variants[state.control].name}` : "");
}

// A chart is as wide as its place, so that its text keeps its size on narrow screens.
const chartWidth = (svg) => Math.max(svg.clientWidth, 240);

function yAxis(top, y, left, right) {
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((size) => top / size <= 5) || top;
  const ticks = Array.from({ length: Math.floor(top / step) + 1 }, (_, i) => i * step);
  return ticks.flatMap((tick) => [
    make("line", { class: "axis", x1: left, x2: right, y1: y(tick), y2: y(tick) }),
    make("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, tick),
  ]);
}

function markLabel(label, event) {
  const { heads, coverage } = blockStatistics(foundIn(0));
  [...element("heads").children].forEach((button, head) =>
    button.classList.toggle("covers", label !== null && heads[head].cluster[label] >= 0),
  );
  if (label === null) return hideTooltip();
  const text = `${report.label_names[label]}: covered by ${plural(coverage[label], "head")}`;
  return showTooltip(text, event.clientX, event.clientY);
}

function renderAlong() {
  const panels = [
    ["SNR", (found) => blockStatistics(found).snr],
    ["readout accuracy (%)", (found) => (found.accuracy === null ? NaN : 100 * found.accuracy)],
  ];
  const svg = element("along");
  const half = chartWidth(svg) / 2;
  svg.setAttribute("viewBox", `0 0 ${2 * half} 210`);
  svg.replaceChildren(
    ...panels.map(([title, value], i) => linePanel(title, value, 30 + i * half, half - 40)),
  );
}

function linePanel(title, value, left, width) {
  const lines = report.variants.map(({ blocks }) => report.blocks.map((block) => value(blocks[block])));
  const top = Math.max(1e-9, ...lines.flat().filter(Number.isFinite)) * 1.05;
  const x = (i) => left + 12 + (i * (width - 24)) / Math.max(report.blocks.length - 1, 1);
  const y = (number) => 180 - (number / top) * 150;
  const drawn = lines.map((values, variant) => {
    const points = values.map((number, i) => [x(i), y(number)]).filter((p) => p.every(Number.isFinite));
    const color = `var(--line-${variant})`;
    return make("g", {},
      make("path", { d: points.map((p, i) => `${i ? "L" : "M"}${p}`).join(""), fill: "none",
        stroke: color, "stroke-width": variant ? 1.6 : 2.6 }),
      ...points.map(([cx, cy]) => make("circle", { cx, cy, r: 3.2, fill: color })));
  });
  const names = report.blocks.map((block, i) =>
    make("text", { x: x(i), y: 197, "text-anchor": "middle" }, block),
  );
  return make("g", {}, make("text", { class: "title", x: left, y: 14 }, title),
    ...yAxis(top, y, left, left + width), ...drawn.reverse(), ...names);
}

function renderClusters() {
  const { clusters } = blockStatistics(foundIn(0)).heads[state.head];
  element("clusters-title").textContent =
    `Head ${state.head} recognises ${plural(clusters.flat().length, "label")}`;
  element("clusters").replaceChildren(
    ...bySize(clusters).map((labels) => {
      const names = labels.map((label) => report.label_names[label]).join(" + ");
      return make("span", { class: labels.length > 1 ? "chip many" : "chip" }, names);
    }),
  );
}

function renderScores() {
  const scores = report.scores[state.block] || {};
  const correlations = report.rank_correlations[state.block] || {};
  const names = Object.keys(scores);
  const table = element("scores");
  table.hidden = !names.length;
  const header = ["classical score", `head ${state.head}`, "rank correlation with labels covered"];
  table.tHead.replaceChildren(make("tr", {}, ...header.map((name) => make("th", {}, name))));
  table.tBodies[0].replaceChildren(
    ...names.map((name) => {
      const value = Number(scores[name][state.head].toPrecision(3));
      const correlation = correlations[name];
      const cells = [name.replaceAll("_", " "), value, correlation === null ? "–" : correlation.toFixed(2)];
      return make("tr", {}, ...cells.map((text) => make("td", {}, text)));
    }),
  );
}

function renderLegend() {
  const bar = make("canvas", { width: 200, height: 1 });
  const image = new ImageData(200, 1);
  const colors = responseColors();
  for (let i = 0; i < 200; i++) image.data.set([...colors[ZERO - 99 + i], 255], 4 * i);
  bar.getContext("2d").putImageData(image, 0, 0);
  const swatch = (name) => make("span", { class: "swatch", style: `background:var(${name})` });
  element("legend").replaceChildren(
    ...(state.boolean
      ? [make("span", {}, swatch("--signal"), "on a cluster"), make("span", {}, swatch("--noise"), "noise")]
      : ["−1", bar, "1 (the head's maximum)"]),
  );
}

const views = { own: new MatrixView("own"), other: new MatrixView("other") };

function render() {
  for (const button of element("blocks").children) {
    button.setAttribute("aria-pressed", Number(button.value) === state.block);
  }
  element("threshold").value = state.threshold / 100;
  element("level").textContent = (state.threshold / 100).toFixed(2);
  element("control").value = state.control;
  element("boolean").setAttribute("aria-pressed", state.boolean);
  element("ordered").setAttribute("aria-pressed", state.ordered);
  element("theme").textContent = isDark() ? "Light" : "Dark";
  renderHeads();
  views.own.show(0);
  if (HAS_CONTROLS) views.other.show(state.control);
  renderLegend();
  renderStatistics();
  renderCoverage();
  renderAlong();
  renderClusters();
  renderScores();
}

function update(changes) {
  Object.assign(state, changes);
  state.head = Math.min(Math.max(state.head, 0), foundIn(0).heads - 1);
  state.threshold = Math.min(Math.max(state.threshold, 5), 95);
  render();
}

function switchTheme() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  render();
}

const nextBlock = (by) => {
  const at = report.blocks.indexOf(state.block) + by;
  return report.blocks[Math.min(Math.max(at, 0), report.blocks.length - 1)];
};

const KEYS = {
  ArrowLeft: () => update({ head: state.head - 1 }),
  ArrowRight: () => update({ head: state.head + 1 }),
  ArrowUp: () => update({ block: nextBlock(-1) }),
  ArrowDown: () => update({ block: nextBlock(1) }),
  "-": () => update({ threshold: state.threshold - 1 }),
  "+": () => update({ threshold: state.threshold + 1 }),
  "=": () => update({ threshold: state.threshold + 1 }),
  b: () => update({ boolean: !state.boolean }),
  o: () => update({ ordered: !state.ordered }),
  c: () => HAS_CONTROLS && update({ control: (state.control % (report.variants.length - 1)) + 1 }),
  t: switchTheme,
};

function start() {
  if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.dataset.theme = "dark";
  document.title = report.title;
  element("title").textContent = report.title;
  element("about").textContent = report.about;
  element("blocks").append(
    ...report.blocks.map((block) => {
      const button = make("button", { value: block }, block);
      button.addEventListener("click", () => update({ block }));
      return button;
    }),
  );
  report.variants.forEach(({ name }, i) => {
    if (i > 0) element("control").append(make("option", { value: i }, name));
  });
  for (const part of document.querySelectorAll(".controls")) part.hidden = !HAS_CONTROLS;
  element("threshold").addEventListener("input", (event) =>
    update({ threshold: Math.round(event.target.value * 100) }),
  );
  element("control").addEventListener("change", (event) =>
    update({ control: Number(event.target.value) }),
  );
  element("boolean").addEventListener("click", KEYS.b);
  element("ordered").addEventListener("click", KEYS.o);
  element("theme").addEventListener("click", switchTheme);
  document.addEventListener("keydown", (event) => {
    const isTyping = ["INPUT", "SELECT"].includes(event.target.tagName) && event.key.startsWith("Arrow");
    const action = KEYS[event.key] || KEYS[event.key.toLowerCase()];
    if (!action || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action();
  });
  addEventListener("resize", render);
  render();
}

start();
