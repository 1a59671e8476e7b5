"use strict";

const pictures = JSON.parse(document.getElementById("pictures").textContent);
const cards = [...document.querySelectorAll(".trajectory")];
const filters = [...document.querySelectorAll("#filters [data-key]")];
const shown = document.getElementById("shown");

/** Pictures are decoded only once a trajectory is opened: a page of hundreds stays quick. */
function showPictures(card) {
  for (const image of card.querySelectorAll("img[data-picture]:not([src])")) {
    image.src = "data:image/jpeg;base64," + pictures[image.dataset.picture];
  }
}

function matches(card) {
  return filters.every(({ value, dataset }) =>
    dataset.key === "text"
      ? card.dataset.text.includes(value.trim().toLowerCase())
      : value === "" || card.dataset[dataset.key] === value);
}

function applyFilters() {
  for (const card of cards) card.hidden = !matches(card);
  shown.textContent = cards.filter((card) => !card.hidden).length;
}

/** A link to a trajectory (report.html#t-...) opens it. */
function openLinked() {
  const card = cards.find((card) => "#" + card.id === location.hash);
  if (card) {
    card.open = true;
    card.scrollIntoView();
  }
}

for (const card of cards) card.addEventListener("toggle", () => card.open && showPictures(card));
for (const filter of filters) filter.addEventListener("input", applyFilters);
document.getElementById("filters").addEventListener("reset", () => setTimeout(applyFilters));
window.addEventListener("hashchange", openLinked);
applyFilters();
openLinked();
