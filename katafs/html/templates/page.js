"use strict";
(() => {
  const follow = (id) => {
    const link = document.getElementById(id);
    if (link) location.href = link.href;
    return link !== null;
  };
  const inline = document.getElementById("inline");
  const side = document.getElementById("side");
  const choose = (name) => {
    if (name === "inline" && inline) inline.checked = true;
    if (name === "side" && side) side.checked = true;
    try { if (name) localStorage.setItem("katafs-view", name); } catch { /* no storage here: the choice is this page's */ }
  };
  const names = document.getElementById("names");
  const toFile = (step) => {
    const files = [...document.querySelectorAll(".file[id]")];
    const top = (file) => file.getBoundingClientRect().top;
    const isSeen = (file) => top(file) < innerHeight && file.getBoundingClientRect().bottom > 100;
    // where the reader is: at the file that was chosen last, while it is in sight, else at the one under the bar
    const chosen = files.findIndex((file) => file.matches(":target") && isSeen(file));
    const at = chosen < 0 ? files.findLastIndex((file) => top(file) < 100) : chosen;
    const file = files[Math.max(at + step, 0)];
    if (file) location.replace("#" + file.id);
  };
  try { choose(localStorage.getItem("katafs-view")); } catch { /* the same */ }
  for (const input of [inline, side]) if (input) input.addEventListener("change", () => choose(input.id));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey || event.target.closest("[type=radio], .scroll")) return;
    const keys = { ArrowLeft: "previous", k: "previous", ArrowRight: "next", j: "next", u: "up" };
    if (event.key in keys && follow(keys[event.key])) event.preventDefault();
    if (event.key === "n") toFile(1);
    if (event.key === "p") toFile(-1);
    if (event.key === "c" && names) names.checked = !names.checked;
    if (event.key === "s" && inline && side) choose(inline.checked ? "side" : "inline");
  });
})();
