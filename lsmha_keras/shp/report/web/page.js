// `update` changes the state and draws everything anew; what is pressed, typed and chosen.

const views = { own: new MatrixView("own"), other: new MatrixView("other") };

const showLabel = () => {
  byId("find").value = state.label === null ? "" : nameOf(state.label);
};

function render() {
  const { found, block, head } = beside();
  for (const button of byId("blocks").children) {
    button.setAttribute("aria-pressed", Number(button.value) === state.block);
  }
  byId("head").textContent = state.head;
  byId("threshold").value = state.threshold / 100;
  byId("level").textContent = (state.threshold / 100).toFixed(2);
  byId("boolean").setAttribute("aria-pressed", state.boolean);
  byId("ordered").setAttribute("aria-pressed", state.ordered);
  if (document.activeElement !== byId("find")) showLabel();
  renderChoices();
  renderFound();
  renderHeads();
  views.own.show(VARIANTS[0].name, ownFound(), state.block, state.head);
  views.other.show(VARIANTS[state.variant].name, found, block, head);
  renderLegend();
  renderClusters();
  renderImages();
  renderMap();
  renderStatistics();
  renderCoverage();
  renderAlong();
  renderScores();
  renderAllNumbers();
}

// Which blocks and heads can be beside depends on the model that is.
function renderChoices() {
  const fill = (id, names, chosen) => {
    byId(id).replaceChildren(...names.map(([value, name]) => make("option", { value }, name)));
    byId(id).value = chosen;
  };
  const { blocks } = VARIANTS[state.variant];
  const heads = Array.from({ length: beside().found.heads }, (_, head) => [head, `head ${head}`]);
  fill(
    "control",
    VARIANTS.map(({ name }, i) => [i, name]),
    state.variant,
  );
  fill(
    "other-block",
    [["", "same block"], ...Object.keys(blocks).map((b) => [b, `block ${b}`])],
    state.otherBlock ?? "",
  );
  fill("other-head", [["", "same head"], ...heads], state.otherHead ?? "");
}

function update(changes) {
  Object.assign(state, changes);
  state.head = Math.min(Math.max(state.head, 0), ownFound().heads - 1);
  state.threshold = Math.min(Math.max(state.threshold, data.thresholds[0]), data.thresholds.at(-1));
  if (!((state.otherBlock ?? state.block) in VARIANTS[state.variant].blocks))
    state.otherBlock = null;
  if (state.otherHead >= beside().found.heads) state.otherHead = null;
  render();
  writeAddress();
}

const nextBlock = (by) => {
  const at = data.blocks.indexOf(state.block) + by;
  return data.blocks[Math.min(Math.max(at, 0), data.blocks.length - 1)];
};

const KEYS = {
  ArrowLeft: () => update({ head: state.head - 1 }),
  ArrowRight: () => update({ head: state.head + 1 }),
  ArrowUp: () => update({ block: nextBlock(-1) }),
  ArrowDown: () => update({ block: nextBlock(1) }),
  "-": () => update({ threshold: state.threshold - 1 }),
  "+": () => update({ threshold: state.threshold + 1 }),
  "=": () => update({ threshold: state.threshold + 1 }),
  "/": () => byId("find").focus(),
  b: () => update({ boolean: !state.boolean }),
  o: () => update({ ordered: !state.ordered }),
  c: () => VARIANTS.length > 1 && update({ variant: (state.variant % (VARIANTS.length - 1)) + 1 }),
};

function press(event) {
  const isArrow = event.key.startsWith("Arrow");
  const isChoosing = ["INPUT", "SELECT"].includes(event.target.tagName) && isArrow;
  const action = KEYS[event.key] || KEYS[event.key.toLowerCase()];
  if (!action || isChoosing || isTyping(event) || event.ctrlKey || event.metaKey || event.altKey)
    return;
  event.preventDefault();
  action();
}

// A name, or how only one begins.
function findLabel(text) {
  const wanted = text.trim().toLowerCase();
  const names = data.label_names.map((name) => name.toLowerCase());
  if (names.includes(wanted)) return names.indexOf(wanted);
  const starting = names.flatMap((name, i) => (wanted && name.startsWith(wanted) ? [i] : []));
  return starting.length === 1 ? starting[0] : null;
}

function listen() {
  const number = (text) => (text === "" ? null : Number(text));
  const choose = (id, change) =>
    byId(id).addEventListener("change", ({ target }) => update(change(target.value)));
  byId("threshold").addEventListener("input", ({ target }) =>
    update({ threshold: Math.round(target.value * 100) }),
  );
  byId("find").addEventListener("input", ({ target }) =>
    update({ label: findLabel(target.value) }),
  );
  byId("find").addEventListener(
    "keydown",
    ({ key }) => ["Enter", "Escape"].includes(key) && byId("find").blur(),
  );
  // Nothing is drawn anew here: a button that was pressed meanwhile must stay.
  byId("find").addEventListener("blur", showLabel);
  choose("control", (value) => ({ variant: Number(value) }));
  choose("other-block", (value) => ({ otherBlock: number(value) }));
  choose("other-head", (value) => ({ otherHead: number(value) }));
  byId("previous").addEventListener("click", KEYS.ArrowLeft);
  byId("next").addEventListener("click", KEYS.ArrowRight);
  byId("boolean").addEventListener("click", KEYS.b);
  byId("ordered").addEventListener("click", KEYS.o);
  document.addEventListener("keydown", press);
  listenToMap();
  let width = innerWidth;
  addEventListener("resize", () => {
    // A telephone's address bar changes the height while one scrolls.
    if (width !== innerWidth) render();
    width = innerWidth;
  });
  addEventListener("theme", render);
  addEventListener("hashchange", () => update(readAddress()));
}

async function start() {
  await unpackAll();
  if (data.exemplars?.sheet) {
    sheet.src = data.exemplars.sheet;
    await sheet.decode();
  }
  byId("blocks").append(
    ...data.blocks.map((block) => makeButton(block, () => update({ block }), { value: block })),
  );
  byId("labels").append(...data.label_names.map((value) => make("option", { value })));
  byId("cite").textContent = data.cite.join(" · ");
  addTools();
  listen();
  update(readAddress());
  document.body.dataset.ready = "yes";
}

start().catch((error) => {
  byId("about").textContent = `This page needs a browser of 2023 or later. (${error.message})`;
  throw error;
});
