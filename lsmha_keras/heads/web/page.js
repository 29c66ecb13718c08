// The photo or the words, and what was found in them.

const [rows, columns] = data.grid;
const overlay = byId("overlay");
const pixels = overlay.getContext("2d");
let shown = null; // {title, tokens}: a method, or a head
let cursor = null; // the token that the value is of

function color(share) {
  const place = share * (data.colors.length - 1);
  const below = Math.min(Math.floor(place), data.colors.length - 2);
  return data.colors[below].map(
    (start, i) => start + (place - below) * (data.colors[below + 1][i] - start),
  );
}

// A small canvas of one pixel a token, which the browser enlarges.
function heat(tokens, strength) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, rows];
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const most = Math.max(...tokens, 0) || 1;
  tokens.forEach((value, i) => {
    const share = Math.max(value, 0) / most;
    image.data.set([...color(share), 255 * strength * Math.sqrt(share)], 4 * i);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

// Colours the words, each by its relevance.
function colourWords(tokens, strength) {
  const most = Math.max(...tokens, 0) || 1;
  [...byId("words").children].forEach((word, i) => {
    const share = Math.max(tokens[i], 0) / most;
    word.style.background = `rgba(${color(share).join()},${strength * Math.sqrt(share)})`;
  });
}

function paint(canvas, tokens, strength) {
  const context = canvas.getContext("2d");
  context.filter = "none";
  if (data.words) return context.drawImage(heat(tokens, 1), 0, 0, canvas.width, canvas.height);
  const { naturalWidth: width, naturalHeight: height } = byId("photo");
  // A photo of few pixels is enlarged, so that the heat over it is smooth.
  const times = Math.max(1, Math.round(384 / width));
  if (canvas === overlay) [canvas.width, canvas.height] = [width * times, height * times];
  context.imageSmoothingEnabled = canvas !== overlay;
  context.filter = "grayscale(1)";
  context.drawImage(byId("photo"), 0, 0, canvas.width, canvas.height);
  context.filter = "none";
  context.imageSmoothingEnabled = true;
  context.drawImage(heat(tokens, strength), 0, 0, canvas.width, canvas.height);
}

const placeOf = (token) =>
  data.words
    ? data.words[token]
    : `row ${Math.floor(token / columns)}, column ${token % columns}`;

function say() {
  const value =
    cursor === null
      ? ""
      : `${placeOf(cursor)}: ${shown.tokens[cursor].toPrecision(3)}`;
  byId("value").textContent = [shown.title, value].filter(Boolean).join(" · ");
}

function draw() {
  if (data.words) {
    colourWords(shown.tokens, byId("strength").value / 100);
    return say();
  }
  paint(overlay, shown.tokens, byId("strength").value / 100);
  if (cursor !== null) {
    const [w, h] = [overlay.width / columns, overlay.height / rows];
    pixels.strokeStyle = "#0b5fa5";
    pixels.lineWidth = Math.max(1, w / 16);
    pixels.strokeRect((cursor % columns) * w, Math.floor(cursor / columns) * h, w, h);
  }
  overlay.setAttribute("aria-label", `${shown.title}, painted over the photo`);
  say();
}

function show(choice, note, button) {
  shown = choice;
  byId("note").textContent = note;
  document
    .querySelectorAll("[aria-pressed]")
    .forEach((each) => each.setAttribute("aria-pressed", each === button));
  draw();
}

function addButton(place, choice, note) {
  const button = document.createElement("button");
  button.setAttribute("aria-pressed", "false");
  button.title = choice.title;
  button.addEventListener("click", () => show(choice, note, button));
  place.append(button);
  return button;
}

function moveCursor(event) {
  const box = overlay.getBoundingClientRect();
  const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
  const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
  if (row < 0 || column < 0 || row >= rows || column >= columns) return;
  cursor = row * columns + column;
  draw();
}

function moveByKey(key) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const next = (cursor ?? 0) + (cursor === null ? 0 : steps[key]);
  if (next >= 0 && next < rows * columns) cursor = next;
  draw();
}

function turn(step) {
  const buttons = [...byId("methods").children];
  const now = buttons.findIndex((each) => each.getAttribute("aria-pressed") === "true");
  buttons[(now + step + buttons.length) % buttons.length].click();
}

function listClasses() {
  byId("classes").append(
    ...data.classes.map(({ name, share, explained }) => {
      const row = document.createElement("li");
      row.className = explained ? "explained" : "";
      const [label, bar, number] = ["span", "span", "span"].map((tag) =>
        document.createElement(tag),
      );
      label.textContent = name;
      bar.className = "bar";
      bar.style.width = `${100 * share}%`;
      number.textContent = `${(100 * share).toFixed(1)} %`;
      row.append(label, bar, number);
      return row;
    }),
  );
}

function listHeads() {
  byId("head-section").hidden = !data.heads.length;
  for (const { block, maps } of data.heads) {
    const line = document.createElement("div");
    line.className = "block";
    const name = document.createElement("span");
    name.textContent = `block ${block}`;
    line.append(name);
    maps.forEach((tokens, head) => {
      const title = `block ${block}, head ${head}`;
      const button = addButton(line, { title, tokens }, data.head_note);
      button.setAttribute("aria-label", title);
      const small = document.createElement("canvas");
      small.width = small.height = 44;
      button.append(small);
      paint(small, tokens, 0.75);
    });
    byId("heads").append(line);
  }
}

function listWords() {
  document.querySelector(".pictures").hidden = true;
  byId("words").hidden = false;
  data.words.forEach((word, i) => {
    const place = document.createElement("span");
    place.textContent = word;
    const choose = () => {
      cursor = i;
      draw();
    };
    place.addEventListener("pointerenter", choose);
    place.addEventListener("pointerdown", choose);
    byId("words").append(place, " ");
  });
}

function start() {
  if (data.words) listWords();
  listClasses();
  listHeads();
  for (const method of data.methods) {
    addButton(byId("methods"), method, method.note).textContent = method.title;
  }
  byId("methods").firstElementChild.click();
}

byId("strength").addEventListener("input", draw);
overlay.addEventListener("pointermove", moveCursor);
overlay.addEventListener("pointerdown", moveCursor);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === overlay && event.key.startsWith("Arrow")) {
    event.preventDefault();
    moveByKey(event.key);
  } else if (event.target.tagName !== "INPUT" && event.key === "ArrowLeft") turn(-1);
  else if (event.target.tagName !== "INPUT" && event.key === "ArrowRight") turn(1);
});
if (data.words) start();
else {
  byId("photo").addEventListener("load", start);
  byId("photo").src = data.photo;
}
