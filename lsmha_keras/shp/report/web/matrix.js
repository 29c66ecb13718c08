// The matrix of a head on a canvas, with a close-up of the cell that was chosen.

const CLOSE_UP = 7; // labels on a side

function paint(found, head, boolean) {
  const { cluster, clusters } = blockAt(found).heads[head];
  const order = labelOrder(clusters);
  const level = ZERO + state.threshold;
  const colors = responseColors();
  const [empty, noise, signal] = ["--card", "--noise", "--signal"].map((name) => rgb(style(name)));
  const image = new ImageData(NUM_LABELS, NUM_LABELS);
  for (let i = 0; i < NUM_LABELS ** 2; i++) {
    const row = order[Math.floor(i / NUM_LABELS)];
    const column = order[i % NUM_LABELS];
    const code = found.codes[(head * NUM_LABELS + row) * NUM_LABELS + column];
    let color = colors[code];
    if (boolean && code) {
      const inCluster = cluster[row] >= 0 && cluster[row] === cluster[column];
      color = code <= level ? empty : inCluster ? signal : noise;
    }
    image.data.set([...color, 255], 4 * i);
  }
  const canvas = make("canvas", { width: NUM_LABELS, height: NUM_LABELS });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return { canvas, order };
}

class MatrixView {
  constructor(id) {
    this.canvas = byId(id);
    this.hovered = null; // [row, column] of the drawn matrix, as long as a mouse is there
    this.chosen = null; // the one that was tapped, or reached by arrows
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.canvas.addEventListener("pointerleave", () => this.leave());
    this.canvas.addEventListener("click", (event) => this.choose(this.place(event)));
    this.canvas.addEventListener("keydown", (event) => this.step(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  show(name, found, block, head) {
    Object.assign(this, { name, found, block, head });
    this.painted = paint(found, head, state.boolean);
    this.draw();
    this.describe();
    const statistics = blockAt(found).heads[head];
    const labels = statistics.clusters.flat().length;
    const dead = found.dead.includes(head) ? " (dead: no response above zero)" : "";
    byId(`${this.canvas.id}-title`).textContent = `${name}, block ${block}, head ${head}${dead}`;
    byId(`${this.canvas.id}-figures`).textContent =
      `${plural(statistics.clusters.length, "cluster")} of ${plural(labels, "label")}, ` +
      `noise ${statistics.noise}, ${statistics.clusterNoise} of it in the clusters' columns`;
    this.canvas.setAttribute(
      "aria-label",
      `Responses of head ${head} of block ${block}, ${name}: ` +
        `${byId(`${this.canvas.id}-figures`).textContent}. Arrows move over the cells.`,
    );
  }

  draw() {
    if (!this.painted) return;
    const side = Math.round(this.canvas.clientWidth * (devicePixelRatio || 1));
    const context = this.canvas.getContext("2d");
    this.canvas.width = this.canvas.height = side;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.painted.canvas, 0, 0, side, side);
    const unit = side / NUM_LABELS;
    context.strokeStyle = style("--ink");
    context.lineWidth = Math.max(1, side / 600);
    for (const [corner, size] of this.frames()) {
      context.strokeRect(corner * unit, corner * unit, size * unit, size * unit);
    }
    const cell = this.hovered || this.chosen;
    if (cell) {
      const [row, column] = cell;
      context.globalAlpha = 0.45;
      context.strokeRect(0, row * unit, side, unit);
      context.strokeRect(column * unit, 0, unit, side);
      context.globalAlpha = 1;
      context.strokeRect(column * unit, row * unit, unit, unit);
    }
  }

  // Corner and size of the squares of clusters; a frame would hide a single cell.
  frames() {
    if (!state.ordered) return [];
    let corner = 0;
    const squares = bySize(blockAt(this.found).heads[this.head].clusters).map(({ length }) => {
      corner += length;
      return [corner - length, length];
    });
    return squares.filter(([, size]) => size > 1);
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const at = (offset, size) =>
      Math.min(Math.max(Math.floor((offset / size) * NUM_LABELS), 0), NUM_LABELS - 1);
    return [at(event.clientY - box.top, box.height), at(event.clientX - box.left, box.width)];
  }

  hover(event) {
    if (event.pointerType === "touch") return; // a finger scrolls, or taps
    this.hovered = this.place(event);
    this.draw();
    showTooltip(this.text(this.hovered), event.clientX, event.clientY);
  }

  leave() {
    this.hovered = null;
    this.draw();
    hideTooltip();
  }

  choose(cell) {
    const isSame = cell && this.chosen?.every((place, i) => place === cell[i]);
    this.chosen = isSame ? null : cell;
    this.draw();
    this.describe();
  }

  step(event) {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key === "Escape") this.choose(null);
    if (!(event.key in move)) return;
    event.preventDefault();
    event.stopPropagation();
    const clamp = (value) => Math.min(Math.max(value, 0), NUM_LABELS - 1);
    const from = this.chosen || [-1, -1];
    this.chosen = null;
    this.choose(from.map((value, i) => clamp(value + move[event.key][i])));
  }

  // Label of the image, of the output unit, code, and whether both are in one cluster.
  read(cell) {
    const [row, column] = cell.map((place) => this.painted.order[place]);
    const code = this.found.codes[(this.head * NUM_LABELS + row) * NUM_LABELS + column];
    const { cluster } = blockAt(this.found).heads[this.head];
    return { row, column, code, inCluster: cluster[row] >= 0 && cluster[row] === cluster[column] };
  }

  text(cell) {
    const { row, column, code, inCluster } = this.read(cell);
    const value = code === 0 ? `no ${data.samples}` : ((code - ZERO) / 100).toFixed(2);
    const kind = code > ZERO + state.threshold ? (inCluster ? ", on a cluster" : ", noise") : "";
    return `${nameOf(row)} ${data.samples}, output ${nameOf(column)}: ${value}${kind}`;
  }

  describe() {
    const { id } = this.canvas;
    byId(`${id}-cell`).textContent = this.chosen
      ? this.text(this.chosen)
      : "Choose a cell to read it.";
    byId(`${id}-cell`).classList.toggle("soft", !this.chosen);
    byId(`${id}-close-up`).replaceChildren(...(this.chosen ? [this.closeUp()] : []));
  }

  closeUp() {
    const shown = Math.min(CLOSE_UP, NUM_LABELS);
    const places = this.chosen.map((place) => {
      const first = Math.min(Math.max(place - (shown >> 1), 0), NUM_LABELS - shown);
      return Array.from({ length: shown }, (_, i) => first + i);
    });
    const name = (place) => nameOf(this.painted.order[place]);
    const header = places[1].map((place) =>
      make("th", { scope: "col" }, make("span", {}, name(place))),
    );
    const rows = places[0].map((row) =>
      make(
        "tr",
        {},
        make("th", { scope: "row" }, name(row)),
        ...places[1].map((column) => this.closeCell([row, column])),
      ),
    );
    return make(
      "table",
      { "aria-label": "Close-up" },
      make("thead", {}, make("tr", {}, make("td"), ...header)),
      make("tbody", {}, ...rows),
    );
  }

  closeCell(cell) {
    const { code, inCluster } = this.read(cell);
    const color = responseColors()[code];
    const isLight = color[0] * 0.3 + color[1] * 0.59 + color[2] * 0.11 > 140;
    const kind = code > ZERO + state.threshold ? (inCluster ? "signal" : "noise") : "";
    const isChosen = this.chosen.every((place, i) => place === cell[i]);
    const made = make(
      "td",
      {
        class: `${kind} ${isChosen ? "chosen" : ""}`,
        style: `background:rgb(${color.map(Math.round)});color:${isLight ? "#111" : "#fff"}`,
      },
      code ? ((code - ZERO) / 100).toFixed(2) : "–",
    );
    made.addEventListener("click", () => isChosen || this.choose(cell));
    return made;
  }
}
