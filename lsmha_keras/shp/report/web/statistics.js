"use strict";
// What the page shows, `state`, and the statistics of it, as lsmha_keras/shp/statistics.py has them.

const report = JSON.parse(document.getElementById("report").textContent);
const NUM_LABELS = report.label_names.length;
const ZERO = 155; // A code is the response in hundredths, rounded up, plus this; 0: no images.
const HAS_CONTROLS = report.variants.length > 1;

const state = {
  block: report.blocks.at(-1),
  head: 0,
  threshold: Math.round(report.threshold * 100), // in hundredths
  control: HAS_CONTROLS ? 1 : 0, // a variant; 0 is what the report is about
  boolean: false,
  ordered: true,
};

for (const variant of report.variants) {
  for (const found of Object.values(variant.blocks)) {
    found.codes = Uint8Array.from(atob(found.codes), (character) => character.charCodeAt(0));
    found.cache = new Map();
  }
}

function findClusters(codes, start, level) {
  const isSet = (row, column) => codes[start + row * NUM_LABELS + column] > level;
  let remaining = [];
  for (let label = 0; label < NUM_LABELS; label++) if (isSet(label, label)) remaining.push(label);
  const clusters = [];
  while (remaining.length) {
    const cluster = [remaining[0]];
    const others = [];
    for (const label of remaining.slice(1)) {
      const fits = cluster.every((member) => isSet(member, label) && isSet(label, member));
      (fits ? cluster : others).push(label);
    }
    clusters.push(cluster);
    remaining = others;
  }
  return clusters;
}

function headStatistics(codes, head, level) {
  const start = head * NUM_LABELS ** 2;
  const clusters = findClusters(codes, start, level);
  const cluster = new Int16Array(NUM_LABELS).fill(-1); // of each label
  clusters.forEach((labels, i) => labels.forEach((label) => (cluster[label] = i)));
  const squares = clusters.reduce((sum, labels) => sum + labels.length ** 2, 0);
  let ones = 0;
  let inColumns = 0;
  for (let i = 0; i < NUM_LABELS ** 2; i++) {
    if (codes[start + i] > level) {
      ones++;
      if (cluster[i % NUM_LABELS] >= 0) inColumns++;
    }
  }
  return { clusters, cluster, noise: ones - squares, clusterNoise: inColumns - squares };
}

function blockStatistics(found) {
  const level = ZERO + state.threshold;
  if (!found.cache.has(level)) {
    if (found.cache.size > 100) found.cache.clear();
    found.cache.set(level, computeStatistics(found, level));
  }
  return found.cache.get(level);
}

function computeStatistics(found, level) {
  const heads = Array.from({ length: found.heads }, (_, h) => headStatistics(found.codes, h, level));
  const sum = (value) => heads.reduce((total, head) => total + value(head), 0);
  const numClusters = sum((head) => head.clusters.length);
  const noise = sum((head) => head.noise);
  const coverage = new Array(NUM_LABELS).fill(0);
  heads.forEach((head) => head.clusters.flat().forEach((label) => coverage[label]++));
  const covered = coverage.reduce((a, b) => a + b, 0);
  const size = numClusters ? covered / numClusters : 0;
  const numMeasured = NUM_LABELS - found.missing.length;
  const pairs = numMeasured * (NUM_LABELS - 1);
  const disturbance = (covered * (size - 1) + noise) / pairs;
  const signal = covered / numMeasured;
  return {
    heads,
    coverage,
    size,
    clusters: numClusters / heads.length,
    noise: noise / heads.length,
    clusterNoise: sum((head) => head.clusterNoise) / heads.length,
    snr: covered ? signal / Math.max(disturbance, 0) : 0,
  };
}

function labelOrder(clusters) {
  if (!state.ordered) return [...Array(NUM_LABELS).keys()];
  const first = bySize(clusters).flat();
  const isFirst = new Set(first);
  return first.concat([...Array(NUM_LABELS).keys()].filter((label) => !isFirst.has(label)));
}
