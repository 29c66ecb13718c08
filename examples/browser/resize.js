/**
 * Resizes as Pillow does, which the models were trained with: a centred part with the proportions
 * of the result, an antialiased triangle filter, whole numbers throughout (Pillow, Resample.c).
 * Each browser's canvas resizes in a way of its own, and gives other logits. Pillow 13 takes the
 * axes of some tall images in the other order, which changes pixels by one level.
 */

const PRECISION = 2 ** 22; // of Pillow's weights

/** Weights of the input's places in each place of the output, from a part `[from, to)` of it. */
function weights(inputSize, from, to, outputSize) {
  const scale = (to - from) / outputSize;
  const support = Math.max(scale, 1);
  return Array.from({ length: outputSize }, (_, place) => {
    const centre = from + (place + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), inputSize);
    const shares = [];
    for (let x = first; x < last; x++) {
      shares.push(Math.max(1 - Math.abs((x - centre + 0.5) * (1 / support)), 0));
    }
    const sum = shares.reduce((a, b) => a + b, 0);
    return { first, shares: shares.map((share) => Math.trunc(0.5 + (share / sum) * PRECISION)) };
  });
}

/** Resizes along one axis: `at(line, place)` tells where a pixel begins in `input`. */
function resizeAxis(input, table, lines, at, output, to) {
  for (let line = 0; line < lines; line++) {
    table.forEach(({ first, shares }, place) => {
      for (let channel = 0; channel < 3; channel++) {
        let sum = PRECISION / 2;
        shares.forEach((share, k) => (sum += input[at(line, first + k) + channel] * share));
        output[to(line, place) + channel] = Math.min(Math.floor(sum / PRECISION), 255);
      }
    });
  }
}

/**
 * @param image {{pixels: Uint8Array, width: number, height: number}} RGB, row after row
 * @returns {Uint8Array} RGB of `width` x `height` pixels
 */
export function resizeToFit(image, width, height) {
  const cropWidth = Math.max(Math.min(image.width, Math.floor((image.height * width) / height)), 1);
  const cropHeight = Math.max(Math.min(image.height, Math.floor((image.width * height) / width)), 1);
  const left = Math.floor((image.width - cropWidth) / 2);
  const top = Math.floor((image.height - cropHeight) / 2);
  // An axis that keeps its size and has nothing cut off gets weights of one: it stays as it is.
  const across = weights(image.width, left, left + cropWidth, width);
  const down = weights(image.height, top, top + cropHeight, height);
  const narrow = new Uint8Array(3 * width * image.height);
  const inRow = (size) => (row, column) => 3 * (row * size + column);
  const inColumn = (size) => (column, row) => 3 * (row * size + column);
  resizeAxis(image.pixels, across, image.height, inRow(image.width), narrow, inRow(width));
  const result = new Uint8Array(3 * width * height);
  resizeAxis(narrow, down, width, inColumn(width), result, inColumn(width));
  return result;
}
