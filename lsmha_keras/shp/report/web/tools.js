// Elements, colours, numbers as text, the tooltip.

const element = (id) => document.getElementById(id);
const foundIn = (variant) => report.variants[variant].blocks[state.block];
const isDark = () => document.documentElement.dataset.theme === "dark";
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function make(tag, attributes = {}, ...children) {
  const namespace = "http://www.w3.org/2000/svg";
  const isSvg = ["svg", "g", "rect", "line", "path", "circle", "text"].includes(tag);
  const made = isSvg ? document.createElementNS(namespace, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
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

const bySize = (clusters) => [...clusters].sort((a, b) => b.length - a.length);

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

function showTooltip(text, left, top) {
  const tooltip = element("tooltip");
  tooltip.textContent = text;
  tooltip.hidden = false;
  const { width, height } = tooltip.getBoundingClientRect();
  tooltip.style.left = `${Math.min(left + 10, window.innerWidth - width - 8)}px`;
  tooltip.style.top = `${Math.min(top + 10, window.innerHeight - height - 8)}px`;
}

function hideTooltip() {
  element("tooltip").hidden = true;
}
