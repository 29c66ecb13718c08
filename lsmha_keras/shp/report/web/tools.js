// Elements, colours, numbers as text, the tooltip.

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const SVG_TAGS = ["svg", "g", "rect", "line", "path", "circle", "text", "image"];
const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
  const isSvg = SVG_TAGS.includes(tag);
  const made = isSvg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const makeRect = (x, y, width, height, attributes = {}) =>
  make("rect", { x, y, width, height, ...attributes });

const makeText = (x, y, text, anchor, attributes = {}) =>
  make("text", { x, y, "text-anchor": anchor, ...attributes }, text);

const makeUpwardText = (x, y, text, anchor, attributes = {}) =>
  make(
    "text",
    { transform: `translate(${x},${y}) rotate(-90)`, "text-anchor": anchor, ...attributes },
    text,
  );

function makeButton(text, action, attributes = {}) {
  const button = make("button", attributes, text);
  button.addEventListener("click", action);
  return button;
}

function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

function gradient(stops, at) {
  const place = Math.min(Math.max(at, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(place), stops.length - 2);
  return stops[i].map((value, k) => value + (stops[i + 1][k] - value) * (place - i));
}

function responseColors() {
  const stops = isDark()
    ? ["#ffcf8a", "#c97c1a", "#1a2129", "#2f86cc", "#d5ecff"]
    : ["#8a4b00", "#f0a94e", "#ffffff", "#5fa3dc", "#08325c"];
  const colors = Array.from({ length: 256 }, (_, code) =>
    gradient(stops.map(rgb), 0.5 + (code - ZERO) / 200),
  );
  colors[0] = rgb(isDark() ? "#4a5662" : "#c3cad2");
  return colors;
}

const format = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits) : "∞");

function formatRatio(value) {
  return Number.isFinite(value) ? Number(value.toPrecision(3)).toString() : "∞";
}

const formatShare = (value) => (value === null ? "–" : `${(100 * value).toFixed(2)} %`);

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

const nameOf = (label) => data.label_names[label];

const listNames = (labels) => labels.map(nameOf).join(" + ");

function showTooltip(text, left, top) {
  const tooltip = byId("tooltip");
  tooltip.textContent = text;
  tooltip.hidden = false;
  const { width, height } = tooltip.getBoundingClientRect();
  tooltip.style.left = `${Math.max(0, Math.min(left + 10, innerWidth - width - 8))}px`;
  tooltip.style.top = `${Math.max(0, Math.min(top + 10, innerHeight - height - 8))}px`;
}

function hideTooltip() {
  byId("tooltip").hidden = true;
}

// A narrow screen shows each row of a table as a block: every cell needs its column's name.
function fillTable(table, header, rows) {
  const cell = (content, i) =>
    make("td", { role: "cell", "data-column": header[i] }, ...[content].flat());
  table.setAttribute("role", "table");
  table.tHead.replaceChildren(
    make(
      "tr",
      { role: "row" },
      ...header.map((name) => make("th", { role: "columnheader", scope: "col" }, name)),
    ),
  );
  table.tBodies[0].replaceChildren(
    ...rows.map((row) => make("tr", { role: "row" }, ...row.map(cell))),
  );
}
