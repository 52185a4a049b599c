// Sorting, filtering and unfolding. The page can be read without it.
"use strict";

const collator = new Intl.Collator(undefined, { numeric: true });
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// A cell's data-value is a number, empty where there is none; other cells sort by their text.
function value(cell) {
  if (cell.dataset.value === undefined) return cell.textContent.trim();
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
}

function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b);
}

// Stable, and what has no value comes last either way.
function sorted(items, key, sign) {
  return items.map((item) => [key(item), item]).sort(([a], [b]) =>
    a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)).map(([, item]) => item);
}

for (const table of all("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const body = table.tBodies[0];
      const number = [...body.rows].some((row) => row.cells[column].dataset.value);
      const before = head.getAttribute("aria-sort");
      const ascending = before ? before === "descending" : !number; // of numbers, the largest first
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      body.append(...sorted([...body.rows], (row) => value(row.cells[column]), ascending ? 1 : -1));
    });
  });
}

const controls = document.getElementById("controls");
const find = document.getElementById("find");
const order = document.getElementById("order");
const foldOuts = document.getElementById("fold-outs");

function filter() {
  const text = find.value.trim().toLocaleLowerCase();
  const shots = new Set(all("input[name=shot]:checked", controls).map((box) => box.value));
  for (const item of all("[data-name]")) {
    item.hidden = !(shots.has(item.dataset.shot) && item.dataset.name.toLocaleLowerCase().includes(text));
  }
  const shown = all("[data-name]:not([hidden])", document.getElementById("class-table")).length;
  document.getElementById("found").value = `${shown} ${shown === 1 ? "class" : "classes"}`;
}

const orders = {
  few: [(item) => Number(item.dataset.train), 1],
  many: [(item) => Number(item.dataset.train), -1],
  name: [(item) => item.dataset.name, 1],
  gain: [(item) => (item.dataset.gain === "" ? null : Number(item.dataset.gain)), -1],
  loss: [(item) => (item.dataset.gain === "" ? null : Number(item.dataset.gain)), 1],
};

// A link to a class opens its fold-out.
function unfold() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target || target.tagName !== "DETAILS") return;
  if (target.hidden) {
    find.value = "";
    for (const box of all("input[name=shot]", controls)) box.checked = true;
    filter();
  }
  target.open = true;
  target.scrollIntoView();
  target.firstElementChild.focus({ preventScroll: true });
}

controls.hidden = false;
controls.addEventListener("input", filter);
order.addEventListener("change", () => foldOuts.append(...sorted([...foldOuts.children], ...orders[order.value])));
for (const [id, open] of [["unfold", true], ["fold", false]]) {
  document.getElementById(id).addEventListener("click", () => {
    for (const item of all("details.class:not([hidden])")) item.open = open;
  });
}
addEventListener("hashchange", unfold);
// A second click on the same link changes no hash.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#']");
  if (link && link.hash === location.hash) unfold();
});
filter();
unfold();
