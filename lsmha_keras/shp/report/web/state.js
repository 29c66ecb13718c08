// What is shown, `state`; what Python found at its threshold; and the address that keeps it.

const NUM_LABELS = data.label_names.length;
const ZERO = 155; // A code is the response in hundredths, rounded up, plus this; 0: no images.
const VARIANTS = data.variants;

const state = {
  block: data.blocks.at(-1),
  head: 0,
  threshold: Math.round(data.threshold * 100), // in hundredths
  label: null, // the one that is looked for
  variant: VARIANTS.length > 1 ? 1 : 0, // what is beside; 0 is what the report is about
  otherBlock: null, // of what is beside; null: the same
  otherHead: null,
  boolean: false,
  ordered: true,
};
// Without anything else the model is beside itself: another block, or another head.
if (VARIANTS.length === 1) {
  if (data.blocks.length > 1) state.otherBlock = data.blocks[0];
  else state.otherHead = 1;
}

async function unpackArray(text, Type) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Type(await new Response(stream).arrayBuffer());
}

async function unpackAll() {
  for (const variant of VARIANTS) {
    for (const found of Object.values(variant.blocks)) {
      found.codes = await unpackArray(found.codes, Uint8Array);
      found.marks = await unpackArray(found.marks, Uint16Array);
      found.noise = await unpackArray(found.noise, Uint32Array);
    }
  }
  for (const [block, maps] of Object.entries(data.exemplars?.maps || {})) {
    if (maps) data.exemplars.maps[block] = await unpackArray(maps, Uint8Array);
  }
}

const foundIn = (variant, block) => VARIANTS[variant].blocks[block];
const ownFound = () => foundIn(0, state.block);

// The block and the head that are beside: the same ones, if they are there.
function beside() {
  const { blocks } = VARIANTS[state.variant];
  const wanted = state.otherBlock ?? state.block;
  const block = wanted in blocks ? wanted : Number(Object.keys(blocks).at(-1));
  const head = Math.min(state.otherHead ?? state.head, blocks[block].heads - 1);
  return { found: blocks[block], block, head };
}

// A label's mark is one more than the first label of its cluster, and 0 in none.
function headAt(found, head) {
  const at = state.threshold - data.thresholds[0];
  const byMark = new Map();
  const cluster = new Int16Array(NUM_LABELS).fill(-1); // of each label
  for (let label = 0; label < NUM_LABELS; label++) {
    const mark = found.marks[(head * NUM_LABELS + label) * data.thresholds.length + at];
    if (!mark) continue;
    if (!byMark.has(mark)) byMark.set(mark, []);
    byMark.get(mark).push(label);
    cluster[label] = [...byMark.keys()].indexOf(mark);
  }
  const noise = (kind) => found.noise[(kind * data.thresholds.length + at) * found.heads + head];
  return { clusters: [...byMark.values()], cluster, noise: noise(0), clusterNoise: noise(1) };
}

function blockAt(found) {
  if (found.cachedAt === state.threshold) return found.cached;
  const heads = Array.from({ length: found.heads }, (_, head) => headAt(found, head));
  const coverage = new Array(NUM_LABELS).fill(0);
  heads.forEach((head) => head.clusters.flat().forEach((label) => coverage[label]++));
  const figures = found.figures[state.threshold - data.thresholds[0]];
  const [clusters, size, noise, clusterNoise, snr] = figures;
  found.cached = { heads, coverage, clusters, size, noise, clusterNoise, snr: snr ?? Infinity };
  found.cachedAt = state.threshold;
  return found.cached;
}

const bySize = (clusters) => [...clusters].sort((a, b) => b.length - a.length);

function labelOrder(clusters) {
  if (!state.ordered) return [...Array(NUM_LABELS).keys()];
  const first = bySize(clusters).flat();
  const isFirst = new Set(first);
  return first.concat([...Array(NUM_LABELS).keys()].filter((label) => !isFirst.has(label)));
}

function byCoverage(coverage) {
  return coverage.map((_, label) => label).sort((a, b) => coverage[b] - coverage[a] || a - b);
}

function writeAddress() {
  const parts = new URLSearchParams({
    block: state.block,
    head: state.head,
    threshold: (state.threshold / 100).toFixed(2),
    beside: VARIANTS[state.variant].name,
  });
  if (state.otherBlock !== null) parts.set("beside-block", state.otherBlock);
  if (state.otherHead !== null) parts.set("beside-head", state.otherHead);
  if (state.label !== null) parts.set("label", data.label_names[state.label]);
  if (state.boolean) parts.set("view", "above");
  if (!state.ordered) parts.set("order", "data");
  history.replaceState(null, "", `#${parts}`);
}

// What is missing or unknown in the address stays as it is.
function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const changes = {};
  const take = (key, name, read) => {
    const value = parts.has(name) ? read(parts.get(name)) : undefined;
    if (value !== undefined) changes[key] = value;
  };
  const whole = (text) => (/^\d+$/.test(text) ? Number(text) : undefined);
  const place = (list) => (text) => (list.includes(text) ? list.indexOf(text) : undefined);
  const block = (text) => (data.blocks.includes(whole(text)) ? whole(text) : undefined);
  take("block", "block", block);
  take("head", "head", whole);
  take("threshold", "threshold", (text) => Math.round(100 * Number(text)) || undefined);
  take("variant", "beside", place(VARIANTS.map(({ name }) => name)));
  take("otherBlock", "beside-block", whole);
  take("otherHead", "beside-head", whole);
  take("label", "label", place(data.label_names));
  take("boolean", "view", (text) => text === "above");
  take("ordered", "order", (text) => text !== "data");
  return changes;
}
