// The map of heads and labels.

const NARROW = 720; // Below it, the map has a label per row, so that names can be read.
const ROW = 15; // height
let map = null; // the layout that is drawn

// Where heads and labels are: heads down and labels across, or the other way round.
function layOut(room) {
  const { heads, coverage } = blockAt(ownFound());
  const order = byCoverage(coverage);
  const isNarrow = room < NARROW;
  const [headRoom, labelRoom] = isNarrow ? [18, 92] : [30, 104];
  const [left, top] = isNarrow ? [labelRoom, headRoom] : [headRoom, labelRoom];
  const [across, down] = isNarrow ? [heads.length, NUM_LABELS] : [NUM_LABELS, heads.length];
  const step = Math.max(isNarrow ? 13 : 11, (room - left) / across);
  const [width, height] = [left + across * step, top + down * ROW];
  const place = (head, i) => {
    const [column, row] = isNarrow ? [head, i] : [i, head];
    return [left + column * step, top + row * ROW];
  };
  return { heads, order, isNarrow, left, top, step, width, height, place };
}

function mapCells({ heads, order, step, place }) {
  return heads.flatMap(({ clusters, cluster }, head) =>
    order.flatMap((label, i) => {
      if (cluster[label] < 0) return [];
      const [x, y] = place(head, i);
      const size = Math.min(clusters[cluster[label]].length, 4);
      return [makeRect(x + 0.5, y + 0.5, step - 1, ROW - 1, { class: `size-${size}` })];
    }),
  );
}

// Frames around the chosen head and the label that is looked for.
function mapMarks({ order, isNarrow, left, top, step, width, height, place }) {
  const column = ([x]) => makeRect(x, top, step, height - top, { class: "chosen" });
  const row = ([, y]) => makeRect(left, y, width - left, ROW, { class: "chosen" });
  const [markHead, markLabel] = isNarrow ? [column, row] : [row, column];
  const at = order.indexOf(state.label);
  return [markHead(place(state.head, 0)), ...(at < 0 ? [] : [markLabel(place(0, at))])];
}

function mapNames({ heads, order, isNarrow, step, place }) {
  const names = order.map((label, i) => {
    const [x, y] = place(0, i);
    const chosen = { class: label === state.label ? "title" : "" };
    return isNarrow
      ? makeText(x - 6, y + 11, nameOf(label), "end", chosen)
      : makeUpwardText(x + step / 2 + 4, y - 6, nameOf(label), "start", chosen);
  });
  const numbers = heads.map((_, head) => {
    const [x, y] = place(head, 0);
    const chosen = { class: head === state.head ? "small title" : "small" };
    return isNarrow
      ? makeText(x + step / 2, y - 5, head, "middle", chosen)
      : makeText(x - 6, y + ROW - 4, head, "end", chosen);
  });
  return [...names, ...numbers];
}

function renderMap() {
  const svg = byId("map");
  map = layOut(svg.parentElement.clientWidth - 1);
  const { left, top, width, height } = map;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.style.width = `${width}px`;
  svg.setAttribute("aria-label", `Heads and the labels they cover, block ${state.block}`);
  svg.replaceChildren(
    makeRect(left, top, width - left, height - top, { class: "slots" }),
    ...mapCells(map),
    ...mapMarks(map),
    ...mapNames(map),
  );
  byId("map-note").textContent =
    "Labels from the most to the least covered; the chosen head and label are framed.";
}

// The head and the label at a point, or null.
function mapCell(event) {
  const box = byId("map").getBoundingClientRect();
  const column = Math.floor((event.clientX - box.left - map.left) / map.step);
  const row = Math.floor((event.clientY - box.top - map.top) / ROW);
  const [head, i] = map.isNarrow ? [column, row] : [row, column];
  return head in map.heads && i in map.order ? { head, label: map.order[i] } : null;
}

function describeMapCell(event) {
  const cell = mapCell(event);
  if (!cell || event.pointerType === "touch") return hideTooltip();
  const { clusters, cluster } = blockAt(ownFound()).heads[cell.head];
  const found = cluster[cell.label];
  const text = found < 0 ? "not covered" : `in the cluster ${listNames(clusters[found])}`;
  return showTooltip(
    `head ${cell.head}, ${nameOf(cell.label)}: ${text}`,
    event.clientX,
    event.clientY,
  );
}

function listenToMap() {
  byId("map").addEventListener("pointermove", describeMapCell);
  byId("map").addEventListener("pointerleave", hideTooltip);
  byId("map").addEventListener("click", (event) => {
    const cell = mapCell(event);
    if (cell) update(cell);
  });
}
