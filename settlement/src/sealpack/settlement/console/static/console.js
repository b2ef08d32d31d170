// What makes the console handier; every page works without it.
"use strict";

// A second question before what cannot be taken back.
document.addEventListener("submit", (event) => {
  const asked = event.submitter && event.submitter.dataset.confirm;
  if (asked && !window.confirm(asked)) {
    event.preventDefault();
    return;
  }
  const form = event.target;
  if (form.dataset.busy) {
    form.classList.add("busy");
    const told = form.querySelector("[data-told]");
    if (told) told.textContent = form.dataset.busy;
  }
});

// Files dropped on a zone become those of its file input.
for (const zone of document.querySelectorAll("[data-drop]")) {
  const input = zone.querySelector("input[type=file]");
  const told = zone.querySelector("[data-told]");
  const tell = () => {
    const files = Array.from(input.files);
    const names = files.slice(0, 8).map((file) => file.name).join(", ");
    const more = files.length > 8 ? ` and ${files.length - 8} more` : "";
    told.textContent = files.length ? `${files.length} chosen: ${names}${more}` : "";
  };
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  for (const name of ["dragleave", "drop"]) {
    zone.addEventListener(name, () => zone.classList.remove("over"));
  }
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    input.files = event.dataTransfer.files;
    tell();
    if (input.files.length) zone.requestSubmit();
  });
  input.addEventListener("change", tell);
}

// A choice that shows at once what it picks.
for (const choice of document.querySelectorAll("select[data-go]")) {
  choice.addEventListener("change", () => choice.form.requestSubmit());
}

// The menu is closed where there is little room.
const menu = document.querySelector("details.menu");
if (menu && window.matchMedia("(max-width: 52rem)").matches) menu.open = false;
