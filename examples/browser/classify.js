import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
import { resizeToFit } from "./resize.js";

const byId = (id) => document.getElementById(id);
const [file, message, classes] = ["file", "message", "classes"].map(byId);
ort.env.wasm.numThreads = 1; // more need a server that isolates the page (COOP and COEP)

/** Returns the pixels of a file as `lsmha predict` reads them: upright, on white, unconverted. */
async function readPixels(blob) {
  const bitmap = await createImageBitmap(blob, {
    imageOrientation: "from-image",
    colorSpaceConversion: "none",
  });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const pixels = new Uint8Array(3 * width * height);
  for (let i = 0; i < width * height; i++) pixels.set(data.subarray(4 * i, 4 * i + 3), 3 * i);
  return { pixels, width, height };
}

function softmax(logits) {
  const highest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - highest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

async function classify(blob, session, description) {
  const [height, width] = description.image_shape;
  const image = resizeToFit(await readPixels(blob), width, height);
  const input = new ort.Tensor("uint8", image, [1, height, width, 3]);
  const answer = await session.run({ [session.inputNames[0]]: input });
  const outputs = answer[session.outputNames[0]].data;
  const scores = description.activation === "linear" ? softmax(outputs) : [...outputs];
  return scores
    .map((score, label) => [score, description.class_names?.[label] ?? `class ${label}`])
    .sort(([a], [b]) => b - a)
    .slice(0, 5);
}

async function main() {
  const response = await fetch("model/model.json");
  if (!response.ok) throw new Error(`there is no model: ${response.status} ${response.url}`);
  const description = await response.json();
  const session = await ort.InferenceSession.create("model/model.onnx");
  file.addEventListener("change", async () => {
    classes.replaceChildren();
    try {
      const found = await classify(file.files[0], session, description);
      message.textContent = "";
      classes.append(...found.map(([score, name]) => {
        const row = document.createElement("li");
        row.textContent = `${(100 * score).toFixed(1)} % ${name}`;
        return row;
      }));
    } catch (error) {
      message.textContent = `The file cannot be read as an image (${error.message}).`;
    }
  });
  file.disabled = false;
  message.textContent = `${description.name} is ready.`;
}

main().catch((error) => (message.textContent = `The model cannot be loaded: ${error.message}`));
