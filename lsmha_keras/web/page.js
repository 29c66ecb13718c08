"use strict";
// What every page has: its data, its title, and the choice of light or dark.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const isDark = () => document.documentElement.dataset.theme === "dark";
const isTyping = ({ target }) => target.tagName === "INPUT" && target.type !== "range";

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = isDark() ? "Light" : "Dark";
  dispatchEvent(new Event("theme"));
}

const switchTheme = () => setTheme(isDark() ? "light" : "dark");

document.title = byId("title").textContent = data.title;
byId("about").textContent = data.about;
byId("theme").addEventListener("click", switchTheme);
document.addEventListener("keydown", (event) => {
  const isShortcut = event.ctrlKey || event.metaKey || event.altKey;
  if (event.key.toLowerCase() === "t" && !isShortcut && !isTyping(event)) switchTheme();
});
setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
