// The numbers behind each figure, as a table and as CSV, and the figure itself as SVG and PNG.

const SIDE = 640; // of a matrix in a file
const STYLED = [
  "fill",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "font-size",
  "font-weight",
  "font-family",
];
const setting = () => `block ${state.block}, threshold ${(state.threshold / 100).toFixed(2)}`;

const FIGURES = {
  heads: {
    title: () => `Heads, ${setting()}`,
    table: () => [
      ["head", "clusters", "labels covered", "noise", "noise in clusters' columns"],
      blockAt(ownFound()).heads.map(({ clusters, noise, clusterNoise }, head) => [
        head,
        clusters.length,
        clusters.flat().length,
        noise,
        clusterNoise,
      ]),
    ],
    svg: () =>
      canvasRows(
        [...byId("heads").children].map((button) => [
          button.querySelector("canvas"),
          button.textContent,
        ]),
        96,
      ),
  },
  own: matrixFigure("own"),
  other: matrixFigure("other"),
  images: {
    title: () => `What excites head ${state.head} most, ${setting()}`,
    table: () => {
      const { labels, texts } = data.exemplars;
      return [
        ["label", "output unit", "response", ...(texts ? ["text"] : [])],
        shownImages().map(({ image, unit, response }) => [
          nameOf(labels[image]),
          nameOf(unit),
          response,
          ...(texts ? [texts[image].join(" ")] : []),
        ]),
      ];
    },
    isTable: Boolean(data.exemplars?.texts),
    svg: () =>
      canvasRows(
        [...byId("images").children].flatMap((figure) =>
          [...figure.querySelectorAll("canvas")].map((canvas, i) => [
            canvas,
            i ? "" : figure.querySelector("figcaption").firstChild.textContent,
          ]),
        ),
        128,
      ),
  },
  map: {
    title: () => `Which head covers which label, ${setting()}`,
    table: () => {
      const { heads, coverage } = blockAt(ownFound());
      return [
        ["label", "heads", "which"],
        byCoverage(coverage).map((label) => [
          nameOf(label),
          coverage[label],
          heads.flatMap(({ cluster }, head) => (cluster[label] >= 0 ? [head] : [])).join(" "),
        ]),
      ];
    },
    svg: () => chartSvg("map"),
  },
  statistics: { title: () => `Statistics, ${setting()}`, table: statisticsTable, isTable: true },
  coverage: {
    title: () => `How many heads cover each label, ${setting()}`,
    table: () => {
      const [{ coverage }, other] = [blockAt(ownFound()), blockAt(beside().found)];
      const header = ["label", VARIANTS[0].name, ...(isOtherBlock() ? [otherName()] : [])];
      return [
        header,
        byCoverage(coverage).map((label) =>
          [nameOf(label), coverage[label], other.coverage[label]].slice(0, header.length),
        ),
      ];
    },
    svg: () => chartSvg("coverage"),
  },
  along: {
    title: () => `Along the blocks, threshold ${(state.threshold / 100).toFixed(2)}`,
    table: () => [
      ["", "block", "SNR", "readout accuracy"],
      withBlocks().flatMap(({ name, blocks }) =>
        data.blocks.map((block) => [
          name,
          block,
          formatRatio(blockAt(blocks[block]).snr),
          formatShare(blocks[block].accuracy),
        ]),
      ),
    ],
    svg: () => withLegend(chartSvg("along")),
  },
};

function matrixFigure(id) {
  const view = () => views[id];
  return {
    title: () =>
      `${view().name}, block ${view().block}, head ${view().head}, ` +
      `threshold ${(state.threshold / 100).toFixed(2)}`,
    table: () => [
      ["label", "its own response", "cluster", "noise: other outputs above the threshold"],
      view().painted.order.map((label) => labelRow(view(), label)),
    ],
    csv: () => [
      ["label of the input", "output unit", "response", "above threshold", "on a cluster"],
      cellRows(view()),
    ],
    svg: () => matrixSvg(view()),
  };
}

const responseOf = (view, row, column) =>
  view.found.codes[(view.head * NUM_LABELS + row) * NUM_LABELS + column];
const responseText = (code) => (code ? ((code - ZERO) / 100).toFixed(2) : "");

function labelRow(view, label) {
  const { clusters, cluster } = blockAt(view.found).heads[view.head];
  const isNoise = (column) =>
    responseOf(view, label, column) > ZERO + state.threshold &&
    (cluster[label] < 0 || cluster[label] !== cluster[column]);
  const noise = view.painted.order
    .filter(isNoise)
    .map((column) => `${nameOf(column)} ${responseText(responseOf(view, label, column))}`);
  return [
    nameOf(label),
    responseText(responseOf(view, label, label)),
    cluster[label] < 0 ? "" : listNames(clusters[cluster[label]]),
    noise.join(", "),
  ];
}

function cellRows(view) {
  const { cluster } = blockAt(view.found).heads[view.head];
  const { order } = view.painted;
  return order.flatMap((row) =>
    order.map((column) => {
      const code = responseOf(view, row, column);
      const isOn = cluster[row] >= 0 && cluster[row] === cluster[column];
      return [
        nameOf(row),
        nameOf(column),
        responseText(code),
        Number(code > ZERO + state.threshold),
        Number(isOn),
      ];
    }),
  );
}

function matrixSvg(view) {
  const [left, top, step] = [120, 120, SIDE / NUM_LABELS];
  const size = { "font-size": Math.min(11, step * 0.95) };
  const names = view.painted.order.flatMap((label, i) => [
    makeText(left - 4, top + (i + 0.8) * step, nameOf(label), "end", size),
    makeUpwardText(left + (i + 0.8) * step, top - 4, nameOf(label), "start", size),
  ]);
  const line = { fill: "none", stroke: style("--ink"), "stroke-width": 1 };
  const frames = view.frames().map(([corner, length]) => {
    const at = corner * step;
    return makeRect(left + at, top + at, length * step, length * step, line);
  });
  const axis = { "font-size": 11 };
  return {
    width: left + SIDE + 12,
    height: top + SIDE + 24,
    parts: [
      makePicture(view.painted.canvas, left, top, SIDE),
      ...frames,
      ...names,
      makeText(left + SIDE / 2, top + SIDE + 16, "output unit (names above)", "middle", axis),
      makeUpwardText(12, top + SIDE / 2, "label of the input", "middle", axis),
    ],
  };
}

function makePicture(canvas, x, y, side) {
  const href = canvas.toDataURL();
  return make("image", {
    href,
    x,
    y,
    width: side,
    height: side,
    style: "image-rendering:pixelated",
  });
}

// A row after the other of canvases with a line of text below each.
function canvasRows(canvases, side) {
  const across = Math.min(canvases.length, 8);
  const place = (i) => [8 + (i % across) * (side + 12), Math.floor(i / across) * (side + 26)];
  const parts = canvases.flatMap(([canvas, text], i) => {
    const [x, y] = place(i);
    return [
      makePicture(canvas, x, y, side),
      make("text", { x, y: y + side + 13, "font-size": 10 }, text),
    ];
  });
  const rows = Math.ceil(canvases.length / Math.max(across, 1));
  return { width: Math.max(16 + across * (side + 12), 420), height: rows * (side + 26), parts };
}

// A chart of the page with its styles written into it.
function chartSvg(id) {
  const copy = byId(id).cloneNode(true);
  const originals = byId(id).querySelectorAll("*");
  copy.querySelectorAll("*").forEach((element, i) => {
    const computed = getComputedStyle(originals[i]);
    for (const name of STYLED) element.setAttribute(name, computed.getPropertyValue(name));
  });
  const [, , width, height] = copy.getAttribute("viewBox").split(" ").map(Number);
  return { width, height, parts: [...copy.childNodes] };
}

// Which colour stands for what; on the page the table above says it.
function withLegend({ width, height, parts }) {
  const rows = withBlocks().flatMap((variant, i) => {
    const color = style(`--line-${VARIANTS.indexOf(variant) % 5}`);
    const y = height + 8 + 16 * i;
    return [
      makeRect(12, y - 9, 10, 10, { fill: color }),
      makeText(28, y, variant.name, "start", { "font-size": 11 }),
    ];
  });
  return { width, height: height + 8 * rows.length, parts: [...parts, ...rows] };
}

function figureSvg(name) {
  const figure = FIGURES[name].svg();
  const { height, parts } = figure;
  const width = Math.max(figure.width, 640); // room for the title
  const [top, bottom] = [46, 10];
  const svg = make(
    "svg",
    {
      width,
      height: height + top + bottom,
      viewBox: `0 ${-top} ${width} ${height + top + bottom}`,
      "font-family": "system-ui, sans-serif",
      fill: style("--ink"),
    },
    make("rect", { x: 0, y: -top, width, height: height + top + bottom, fill: style("--card") }),
    make("text", { x: 8, y: 18 - top, "font-size": 14, "font-weight": 600 }, FIGURES[name].title()),
    make("text", { x: 8, y: 34 - top, "font-size": 10 }, `${data.title} · ${data.setting}`),
    ...parts,
  );
  return { width, height: height + top + bottom, text: new XMLSerializer().serializeToString(svg) };
}

async function figurePng(name) {
  const { width, height, text } = figureSvg(name);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = make("canvas", { width: 2 * width, height: 2 * height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function figureCsv(name) {
  const figure = FIGURES[name];
  const [header, rows] = (figure.csv || figure.table)();
  const quote = (value) =>
    /[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value;
  return [header, ...rows].map((row) => `${row.map(quote).join(",")}\n`).join("");
}

async function save(name, ending) {
  const makers = {
    png: () => figurePng(name),
    svg: () => new Blob([figureSvg(name).text], { type: "image/svg+xml" }),
    csv: () => new Blob([figureCsv(name)], { type: "text/csv" }),
  };
  const address = URL.createObjectURL(await makers[ending]());
  const file = `${data.title} ${FIGURES[name].title()}`.replace(/[^\p{L}\p{N}.]+/gu, "_");
  make("a", { href: address, download: `${file}.${ending}` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

// Below each figure: its numbers, and what to save. The table is made when it is opened.
function addTools() {
  for (const place of document.querySelectorAll(".tools")) {
    const name = place.dataset.figure;
    const endings = FIGURES[name].isTable ? ["csv"] : ["png", "svg", "csv"];
    if (!FIGURES[name].isTable) {
      const table = make("table", {}, make("thead"), make("tbody"));
      const numbers = make(
        "details",
        {},
        make("summary", {}, "Numbers"),
        make("div", { class: "scroll" }, table),
      );
      numbers.addEventListener("toggle", () => renderNumbers(place));
      place.append(numbers);
    }
    place.append(
      make(
        "span",
        { class: "saves" },
        ...endings.map((ending) =>
          makeButton(ending.toUpperCase(), () => save(name, ending), {
            title: `Save as ${ending.toUpperCase()}`,
          }),
        ),
      ),
    );
  }
}

function renderNumbers(place) {
  const numbers = place.querySelector("details");
  if (!numbers?.open) return;
  const table = numbers.querySelector("table");
  table.setAttribute("aria-label", FIGURES[place.dataset.figure].title());
  fillTable(table, ...FIGURES[place.dataset.figure].table());
}

const renderAllNumbers = () => document.querySelectorAll(".tools").forEach(renderNumbers);
