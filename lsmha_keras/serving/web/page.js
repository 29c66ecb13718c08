"use strict";

const byId = (id) => document.getElementById(id);
const [target, file, photo, hint] = ["target", "file", "photo", "hint"].map(byId);
const [message, classes] = ["message", "classes"].map(byId);
let model = null;
let latest = 0; // the answer to an older photo must not replace that to a newer one

function say(text, wrong = false) {
  message.textContent = text;
  message.classList.toggle("wrong", wrong);
}

function show(found) {
  classes.replaceChildren(...found.map(({ label, name, score }) => {
    const row = document.createElement("li");
    const bar = document.createElement("span");
    bar.className = "bar";
    bar.style.width = `${100 * score}%`;
    const [what, share] = [name ?? `class ${label}`, `${(100 * score).toFixed(1)} %`];
    row.append(bar, ...[what, share].map((text) => {
      const part = document.createElement("span");
      part.textContent = text;
      return part;
    }));
    return row;
  }));
}

function preview(image) {
  URL.revokeObjectURL(photo.src);
  photo.src = URL.createObjectURL(image);
  photo.hidden = false;
  hint.hidden = true;
}

async function classify(image) {
  const turn = ++latest;
  show([]);
  preview(image);
  if (model && image.size > model.max_bytes) {
    say(`The file has ${(image.size / 2 ** 20).toFixed(1)} MiB; ${model.max_bytes / 2 ** 20} MiB are taken at most.`, true);
    return;
  }
  say("Looking …");
  try {
    const form = new FormData();
    form.append("file", image, image.name || "The photo");
    const response = await fetch("classify?top=5", { method: "POST", body: form });
    const answer = await response.json();
    if (turn !== latest) return;
    if (!response.ok) {
      say(answer.message, true);
      return;
    }
    say("");
    show(answer.images[0].classes);
  } catch (error) {
    if (turn === latest) say(`The service does not answer (${error.message}). Is it running?`, true);
  }
}

function take(files) {
  const image = [...files].find((each) => each.type.startsWith("image/")) ?? files[0];
  if (image) classify(image);
}

// A file that the browser cannot show, HEIC among others, may still be readable for the service.
photo.addEventListener("error", () => {
  photo.hidden = true;
  hint.hidden = false;
});
file.addEventListener("change", () => {
  take(file.files);
  file.value = ""; // so that the same file can be chosen again
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));
// On the whole page: a photo that misses the frame would replace the page.
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    target.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files);
  });
}
fetch("model").then((response) => response.json()).then((description) => {
  model = description;
  byId("about").textContent =
    `${model.name} knows ${model.num_classes} classes. Photos go to the service of this page, nowhere else.`;
}).catch(() => say("The service does not answer. Is it running?", true));
