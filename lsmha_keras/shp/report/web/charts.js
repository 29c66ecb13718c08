// The block's table and the charts.

function statisticsTable() {
  const spread = data.spread?.blocks[state.block];
  // Over seeds, at the report's own threshold only.
  const around = (value, i) => (i === 0 && spread && value !== null ? ` ± ${value}` : "");
  const snrSpread =
    state.threshold === Math.round(data.threshold * 100) ? (spread?.snr ?? null) : null;
  const accuracySpread = spread?.accuracy ?? null;
  const header = [
    "",
    "clusters per head",
    "labels per cluster",
    "noise per head",
    "in clusters' columns",
    "heads per label",
    "SNR",
    "readout accuracy",
  ];
  const rows = VARIANTS.flatMap(({ name, blocks }, i) => {
    const found = blocks[state.block];
    if (!found) return [];
    const s = blockAt(found);
    return [
      [
        name,
        format(s.clusters, 2),
        format(s.size, 2),
        format(s.noise, 1),
        format(s.clusterNoise, 1),
        coverageRange(s.coverage, found.missing),
        formatRatio(s.snr) + around(snrSpread === null ? null : snrSpread.toPrecision(2), i),
        formatShare(found.accuracy) +
          around(
            found.accuracy !== null && accuracySpread !== null
              ? (100 * accuracySpread).toFixed(2)
              : null,
            i,
          ),
      ],
    ];
  });
  return [header, rows];
}

function renderStatistics() {
  const [header, rows] = statisticsTable();
  const swatch = (name) => {
    const i = VARIANTS.findIndex((variant) => variant.name === name);
    return make("span", { class: "swatch", style: `background:var(--line-${i % 5})` });
  };
  const cells = rows.map(([name, ...numbers]) => [[swatch(name), name], ...numbers]);
  fillTable(byId("statistics"), header, cells);
  const notes = [];
  if (data.accuracy !== null)
    notes.push(`The model itself is right on ${formatShare(data.accuracy)} of the ${data.samples}.`);
  if (data.spread) {
    notes.push(
      `±: standard deviation over ${data.spread.seeds} readouts, fitted with different ` +
        `seeds; of the SNR at the threshold ${data.threshold}.`,
    );
  }
  byId("statistics-note").textContent = notes.join(" ");
}

function coverageRange(coverage, missing) {
  const measured = coverage.filter((_, label) => !missing.includes(label));
  const mean = measured.reduce((a, b) => a + b, 0) / measured.length;
  return `${mean.toFixed(2)} (${Math.min(...measured)}–${Math.max(...measured)})`;
}

const isOtherBlock = () => beside().found !== ownFound();
const otherName = () => `${VARIANTS[state.variant].name}, block ${beside().block}`;

function renderCoverage() {
  const svg = byId("coverage");
  const width = chartWidth(svg);
  const [height, left, bottom] = [196, 44, 174];
  const { coverage } = blockAt(ownFound());
  const other = [...blockAt(beside().found).coverage].sort((a, b) => b - a);
  const top = Math.max(1, ...coverage, ...other);
  const step = (width - left) / NUM_LABELS;
  const y = (value) => bottom - (value / top) * (bottom - 10);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-label", `Heads that cover each label, block ${state.block}`);
  const bars = byCoverage(coverage).map((label, i) =>
    coverageBar(label, coverage[label], left + i * step, y(coverage[label]), step, bottom),
  );
  const path = other.map((value, i) => `${i ? "L" : "M"}${left + i * step} ${y(value)}h${step}`);
  const line = make("path", {
    d: path.join(""),
    class: "line",
    stroke: `var(--line-${state.variant % 5})`,
  });
  svg.replaceChildren(
    ...yAxis(top, y, left, width, "heads"),
    ...bars,
    ...(isOtherBlock() ? [line] : []),
    makeText(
      (left + width) / 2,
      height - 6,
      "labels, from the most to the least covered",
      "middle",
    ),
  );
  byId("coverage-note").textContent = isOtherBlock()
    ? `Line: ${otherName()}, in its own order.`
    : "";
}

function coverageBar(label, count, x, y, step, bottom) {
  const bar = make(
    "g",
    { "data-label": label, class: label === state.label ? "chosen-bar" : "" },
    makeRect(x, 0, step, bottom, { class: "slot" }),
    makeRect(x + step * 0.1, y, step * 0.8, bottom - y, { class: "bar" }),
  );
  bar.addEventListener("pointermove", ({ pointerType, clientX, clientY }) => {
    if (pointerType === "touch") return;
    showTooltip(`${nameOf(label)}: covered by ${plural(count, "head")}`, clientX, clientY);
  });
  bar.addEventListener("pointerleave", hideTooltip);
  bar.addEventListener("click", () => update({ label: label === state.label ? null : label }));
  return bar;
}

// A chart is as wide as its place, so that its text keeps its size on narrow screens.
const chartWidth = (svg) => Math.max(svg.clientWidth, 240);

function yAxis(top, y, left, right, name) {
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((size) => top / size <= 5) || top;
  const ticks = Array.from({ length: Math.floor(top / step) + 1 }, (_, i) => i * step);
  return [
    makeUpwardText(left - 32, (y(0) + y(top)) / 2, name, "middle"),
    ...ticks.flatMap((tick) => [
      make("line", { class: "axis", x1: left, x2: right, y1: y(tick), y2: y(tick) }),
      makeText(left - 6, y(tick) + 4, tick, "end"),
    ]),
  ];
}

// Of what has the subject's blocks: other models' blocks are others.
const withBlocks = () =>
  VARIANTS.filter(({ blocks }) => data.blocks.every((block) => block in blocks));

function renderAlong() {
  const panels = [
    ["SNR", (found) => blockAt(found).snr],
    ["accuracy (%)", (found) => (found.accuracy === null ? NaN : 100 * found.accuracy)],
  ];
  const svg = byId("along");
  const isNarrow = chartWidth(svg) < 420;
  const width = isNarrow ? chartWidth(svg) : chartWidth(svg) / 2;
  svg.setAttribute("viewBox", `0 0 ${chartWidth(svg)} ${isNarrow ? 440 : 220}`);
  svg.setAttribute("aria-label", "Signal-to-noise ratio and accuracy along the blocks");
  svg.replaceChildren(
    ...panels.map(([title, value], i) => {
      const at = isNarrow ? `translate(0,${220 * i})` : `translate(${i * width},0)`;
      return make("g", { transform: at }, linePanel(title, value, 46, width - 56, i));
    }),
  );
  const itself =
    data.accuracy === null ? "" : `; dashed: the model itself, ${formatShare(data.accuracy)}`;
  byId("along-note").textContent = `Colours as in the table above${itself}.`;
}

function linePanel(title, value, left, width, panel) {
  const lines = withBlocks().map(({ blocks }) => data.blocks.map((block) => value(blocks[block])));
  const itself = panel && data.accuracy !== null ? 100 * data.accuracy : null;
  const top = Math.max(1e-9, itself ?? 0, ...lines.flat().filter(Number.isFinite)) * 1.05;
  const x = (i) => left + 12 + (i * (width - 24)) / Math.max(data.blocks.length - 1, 1);
  const y = (number) => 172 - (number / top) * 156;
  const drawn = lines.map((values, i) => {
    const points = values.map((number, j) => [x(j), y(number)]);
    return pointsAndLine(points, VARIANTS.indexOf(withBlocks()[i]));
  });
  const level = { class: "itself", x1: left, x2: left + width, y1: y(itself), y2: y(itself) };
  return make(
    "g",
    {},
    ...yAxis(top, y, left, left + width, title),
    ...(itself === null ? [] : [make("line", level)]),
    ...drawn.reverse(),
    ...data.blocks.map((block, i) => makeText(x(i), 189, block, "middle")),
    makeText(left + width / 2, 206, "block", "middle"),
  );
}

function pointsAndLine(points, variant) {
  const known = points.filter((point) => point.every(Number.isFinite));
  const color = `var(--line-${variant % 5})`;
  const path = {
    d: known.map((point, i) => `${i ? "L" : "M"}${point}`).join(""),
    class: variant ? "line" : "line first",
    stroke: color,
  };
  const dots = known.map(([cx, cy]) => make("circle", { cx, cy, r: 3.2, fill: color }));
  return make("g", {}, make("path", path), ...dots);
}

function renderScores() {
  const scores = data.scores[state.block] || {};
  const correlations = data.rank_correlations[state.block] || {};
  const names = Object.keys(scores);
  byId("scores-card").hidden = !names.length;
  byId("scores-head").textContent = state.head;
  fillTable(
    byId("scores"),
    ["score", `head ${state.head}`, "rank correlation with labels covered"],
    names.map((name) => {
      const value = scores[name][state.head];
      const correlation = correlations[name] ?? null;
      return [
        name.replaceAll("_", " "),
        value === null ? "–" : Number(value.toPrecision(3)),
        correlation === null ? "–" : correlation.toFixed(2),
      ];
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
  byId("legend").replaceChildren(
    ...(state.boolean
      ? [
          make("span", {}, swatch("--signal"), "on a cluster"),
          make("span", {}, swatch("--noise"), "noise"),
        ]
      : ["−1", bar, "1 (the head's maximum)"]),
  );
  byId("order").textContent = state.ordered
    ? "Order of the labels: the head's clusters first, the largest before smaller ones, framed; " +
      "then the others, as in the data."
    : "Order of the labels: as in the data.";
}
