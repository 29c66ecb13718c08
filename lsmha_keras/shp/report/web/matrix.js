// The matrix of a head on a canvas.

function paint(found, head, boolean) {
  const { cluster, clusters } = blockStatistics(found).heads[head];
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
    this.canvas = element(id);
    this.cell = null; // [row, column] of the drawn matrix
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => this.leave());
    this.canvas.addEventListener("blur", () => this.leave());
    this.canvas.addEventListener("keydown", (event) => this.step(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  show(variant) {
    this.variant = variant;
    this.found = foundIn(variant);
    this.head = Math.min(state.head, this.found.heads - 1);
    this.painted = paint(this.found, this.head, state.boolean);
    this.draw();
    if (this.cell) this.describe();
    const { name } = report.variants[variant];
    const statistics = blockStatistics(this.found).heads[this.head];
    const labels = statistics.clusters.flat().length;
    const dead = this.found.dead.includes(this.head) ? " (dead: no response above zero)" : "";
    element(`${this.canvas.id}-title`).textContent = `${name}, head ${this.head}${dead}`;
    element(`${this.canvas.id}-figures`).textContent =
      `${plural(statistics.clusters.length, "cluster")} of ${plural(labels, "label")}, ` +
      `noise ${statistics.noise}, ${statistics.clusterNoise} of it in the clusters' columns`;
    this.canvas.setAttribute("aria-label", `Responses of head ${this.head}, ${name}`);
  }

  draw() {
    if (!this.painted) return;
    const side = Math.round(this.canvas.clientWidth * (window.devicePixelRatio || 1));
    const context = this.canvas.getContext("2d");
    this.canvas.width = this.canvas.height = side;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.painted.canvas, 0, 0, side, side);
    const unit = side / NUM_LABELS;
    context.strokeStyle = style("--ink");
    context.lineWidth = Math.max(1, side / 600);
    if (state.ordered) this.frameClusters(context, unit);
    if (this.cell) {
      const [row, column] = this.cell;
      context.globalAlpha = 0.45;
      context.strokeRect(0, row * unit, side, unit);
      context.strokeRect(column * unit, 0, unit, side);
      context.globalAlpha = 1;
      context.strokeRect(column * unit, row * unit, unit, unit);
    }
  }

  frameClusters(context, unit) {
    const { clusters } = blockStatistics(this.found).heads[this.head];
    let corner = 0;
    for (const { length } of bySize(clusters)) {
      if (length > 1) context.strokeRect(corner, corner, length * unit, length * unit);
      corner += length * unit;
    }
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const place = (offset, size) =>
      Math.min(Math.max(Math.floor((offset / size) * NUM_LABELS), 0), NUM_LABELS - 1);
    this.cell = [
      place(event.clientY - box.top, box.height),
      place(event.clientX - box.left, box.width),
    ];
    this.draw();
    this.describe();
  }

  step(event) {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (!(event.key in move)) return;
    event.preventDefault();
    event.stopPropagation();
    const clamp = (value) => Math.min(Math.max(value, 0), NUM_LABELS - 1);
    const moved = (this.cell || [-1, -1]).map((value, i) => clamp(value + move[event.key][i]));
    this.cell = moved;
    this.draw();
    this.describe();
  }

  describe() {
    const [row, column] = this.cell.map((place) => this.painted.order[place]);
    const code = this.found.codes[(this.head * NUM_LABELS + row) * NUM_LABELS + column];
    const { cluster } = blockStatistics(this.found).heads[this.head];
    const inCluster = cluster[row] >= 0 && cluster[row] === cluster[column];
    const kind = inCluster ? "on a cluster" : "noise";
    const value = code === 0 ? "no images" : ((code - ZERO) / 100).toFixed(2);
    const isAbove = code > ZERO + state.threshold;
    const names = report.label_names;
    const box = this.canvas.getBoundingClientRect();
    const [top, left] = this.cell.map((place) => ((place + 1) / NUM_LABELS) * box.width);
    showTooltip(
      `${names[row]} images, output ${names[column]}: ${value}${isAbove ? `, ${kind}` : ""}`,
      box.left + left,
      box.top + top,
    );
  }

  leave() {
    this.cell = null;
    this.draw();
    hideTooltip();
  }
}
