// The heads of a block: small matrices, the labels of one, its images or texts, the map of all.

// From no attention to all of it: clear, yellow, orange, red.
const HEAT = [
  [255, 243, 176],
  [253, 190, 80],
  [240, 100, 40],
  [165, 15, 35],
];
const sheet = new Image();

function renderHeads() {
  const found = ownFound();
  const { heads } = blockAt(found);
  byId("block-name").textContent = state.block;
  byId("heads").replaceChildren(
    ...heads.map(({ clusters, cluster }, head) => {
      const { canvas } = paint(found, head, true);
      canvas.classList.toggle("enlarged", NUM_LABELS < 56);
      const button = makeButton(canvas, () => update({ head }), {
        "aria-pressed": head === state.head,
        "aria-label": `Head ${head}: ${plural(clusters.length, "cluster")}`,
      });
      button.append(`${head} · ${clusters.length}`);
      button.classList.toggle("covers", state.label !== null && cluster[state.label] >= 0);
      return button;
    }),
  );
}

// Which heads of which blocks have the label that is looked for.
function renderFound() {
  const place = byId("found");
  place.hidden = state.label === null;
  if (place.hidden) return place.replaceChildren();
  const blocks = data.blocks.map((block) => {
    const { heads } = blockAt(foundIn(0, block));
    const knowing = heads.flatMap(({ cluster }, head) => (cluster[state.label] >= 0 ? [head] : []));
    const buttons = knowing.map((head) =>
      makeButton(head, () => update({ block, head }), {
        "aria-pressed": block === state.block && head === state.head,
        "aria-label": `Block ${block}, head ${head}`,
      }),
    );
    const text = `block ${block}: ${knowing.length ? plural(knowing.length, "head") : "no head"}`;
    return make("span", { class: "knowing" }, text, ...buttons);
  });
  return place.replaceChildren(
    make("b", {}, nameOf(state.label)),
    " is covered by ",
    ...blocks,
    makeButton("×", () => update({ label: null }), { "aria-label": "Look for no label" }),
  );
}

function renderClusters() {
  const { clusters } = blockAt(ownFound()).heads[state.head];
  byId("clusters-title").textContent =
    `Head ${state.head} of block ${state.block} recognises ` +
    plural(clusters.flat().length, "label");
  byId("clusters").replaceChildren(
    ...bySize(clusters).map((labels) => {
      const isChosen = labels.includes(state.label);
      return makeButton(listNames(labels), () => update({ label: isChosen ? null : labels[0] }), {
        class: labels.length > 1 ? "chip many" : "chip",
        "aria-pressed": isChosen,
      });
    }),
  );
}

// Rows of the images to show: those of the cluster that is looked for, or all of the head.
function shownImages() {
  const rows = (data.exemplars?.rows[state.block] || [])
    .map(([head, unit, image, response], i) => ({ head, unit, image, response, i }))
    .filter(({ head }) => head === state.head);
  const { clusters } = blockAt(ownFound()).heads[state.head];
  const cluster = clusters.find((labels) => labels.includes(state.label));
  return cluster ? rows.filter(({ unit }) => cluster.includes(unit)) : rows;
}

function renderImages() {
  byId("exemplars").hidden = !data.exemplars;
  if (!data.exemplars) return;
  const hasMaps = Boolean(data.exemplars.maps[state.block]);
  const { texts } = data.exemplars;
  byId("looks").hidden = !hasMaps;
  byId("looks").textContent = `– ${texts ? "in colour" : "beside each"}: where the head looks`;
  const rows = shownImages();
  byId("images").replaceChildren(
    ...rows.map((row) => {
      const truth = data.exemplars.labels[row.image];
      const isRight = truth === row.unit;
      const text = isRight ? nameOf(truth) : `${nameOf(truth)} → ${nameOf(row.unit)}`;
      return make(
        "figure",
        { class: isRight ? "" : "wrong" },
        ...(texts ? [colouredText(row)] : [thumbnail(row, false)]),
        ...(hasMaps && !texts ? [thumbnail(row, true)] : []),
        make(
          "figcaption",
          {},
          text,
          make("br"),
          make("span", { class: "soft" }, row.response.toFixed(2)),
        ),
      );
    }),
  );
  byId("images-note").textContent = rows.length
    ? "Below each its label, an arrow to the output unit that the head excites where it is " +
      "another one, and the response, in units of the largest mean in the head's matrix. Kept are " +
      `the strongest of all, and one for each label covered at ${data.threshold}.`
    : `None of the ${data.samples} was kept: the head is dead, or does not cover this label at ` +
      `${data.threshold}.`;
}

// Where the head looks in the text or image of a row, 0 to 255 a token.
function looksOf({ i }) {
  const count = data.exemplars.grid[0] * data.exemplars.grid[1];
  return data.exemplars.maps[state.block].subarray(i * count, (i + 1) * count);
}

// The words of a text, those that the head looks at in colour.
function colouredText(row) {
  const looks = data.exemplars.maps[state.block] ? looksOf(row) : [];
  const words = data.exemplars.texts[row.image].flatMap((word, place) => {
    const share = (looks[place] || 0) / 255;
    const color = `rgba(${gradient(HEAT, share).join()},${0.75 * Math.sqrt(share)})`;
    const mark = make("mark", {}, word);
    mark.style.background = color;
    return [mark, " "];
  });
  return make("p", { class: "text" }, ...words);
}

// A canvas with an image, or with what the head looks at over it.
function thumbnail(row, looks) {
  const { image } = row;
  const [height, width] = data.exemplars.side;
  const { columns, grid } = data.exemplars;
  const canvas = make("canvas", { width: 2 * width, height: 2 * height });
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  const [x, y] = [(image % columns) * width, Math.floor(image / columns) * height];
  if (looks) context.filter = "grayscale(1)";
  context.drawImage(sheet, x, y, width, height, 0, 0, canvas.width, canvas.height);
  if (!looks) return canvas;
  const tokens = looksOf(row);
  const heat = new ImageData(grid[1], grid[0]);
  tokens.forEach((value, token) => {
    heat.data.set([...gradient(HEAT, value / 255), 190 * Math.sqrt(value / 255)], 4 * token);
  });
  const small = make("canvas", { width: grid[1], height: grid[0] });
  small.getContext("2d").putImageData(heat, 0, 0);
  context.filter = "none";
  context.imageSmoothingEnabled = true;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  return canvas;
}
