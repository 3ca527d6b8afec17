"use strict";
// Tables work without this script. With it their models can be sorted, searched and filtered, and columns put away; controls and the
// floor keep their place below. Nothing is fetched and nothing is stored.

const words = (text) => text.toLocaleLowerCase().split(/\s+/).filter(Boolean);
const headsOf = (table) => [...table.querySelectorAll("thead tr:last-child th")];
const modelsOf = (table) => [...table.querySelectorAll("tbody.models > tr")].filter((row) => row.cells.length > 1);

// Sorts the models by the column whose heading is pressed, the better end first; empty cells go last.
function sortable(table) {
  const body = table.querySelector("tbody.models");
  const heads = headsOf(table);
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.sort ?? cell.textContent.trim().replaceAll("\u202f", "");
  };
  const compare = (a, b, sign) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const difference = Number(a) - Number(b);
    return sign * (Number.isNaN(difference) ? a.localeCompare(b) : difference);
  };
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const first = Number(head.dataset.way) < 0 ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") !== first ? first : first === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const keyed = modelsOf(table).map((row) => [key(row, column), row]);
      keyed.sort((a, b) => compare(a[0], b[0], sign));
      body.append(...keyed.map(([, row]) => row));
    });
  });
}

// Shows the models that have every word searched for, the family and the property chosen, and says how many.
function filterable(form, table) {
  const rows = modelsOf(table);
  const text = new Map(rows.map((row) => [row, `${row.cells[1].textContent} ${row.cells[2].textContent}`.toLocaleLowerCase()]));
  const output = form.querySelector("output");
  const none = document.createElement("tr");
  none.className = "none";
  none.append(document.createElement("td"));
  none.firstChild.textContent = "No model matches.";
  none.firstChild.colSpan = headsOf(table).length;
  const apply = () => {
    const wanted = words(form.elements.search.value);
    const family = form.elements.family?.value ?? "";
    const property = form.elements.words?.value ?? "";
    let shown = 0;
    for (const row of rows) {
      const has = property === "" || row.dataset.words.split(" ").includes(property.slice(1)) === property.startsWith("+");
      const show = has && (family === "" || row.dataset.family === family) && wanted.every((word) => text.get(row).includes(word));
      row.hidden = !show;
      shown += show;
    }
    if (shown === 0 && rows.length) table.querySelector("tbody.models").append(none);
    else none.remove();
    output.textContent = shown === rows.length ? `${rows.length} model${rows.length === 1 ? "" : "s"}` : `${shown} of ${rows.length} models`;
    form.querySelector("[type=reset]").disabled = !wanted.length && !family && !property && !table.querySelector("thead tr:last-child th[hidden]");
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  apply();
}

// A menu of checkboxes, one a column after those that name the row.
function withColumns(form, table) {
  const menu = form.querySelector(".menu");
  const heads = headsOf(table);
  const groups = [...table.querySelectorAll("thead .groups > *")];
  const fixed = groups[0].colSpan;
  const spans = groups.map((group) => group.colSpan);
  const show = (column, on) => {
    for (const row of table.rows) if (row.cells.length === heads.length && row.parentNode.tagName !== "THEAD") row.cells[column].hidden = !on;
    heads[column].hidden = !on;
    let start = 0;
    groups.forEach((group, at) => {
      const left = heads.slice(start, start + spans[at]).filter((head) => !head.hidden).length;
      start += spans[at];
      group.hidden = left === 0;
      group.colSpan = Math.max(1, left);
    });
  };
  heads.slice(fixed).forEach((head, at) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = box.defaultChecked = true;
    box.addEventListener("input", () => show(fixed + at, box.checked));
    label.append(box, ` ${head.textContent.trim()}`);
    menu.querySelector("div").append(label);
  });
  form.addEventListener("reset", () => heads.forEach((_, column) => show(column, true)));
  document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
}

document.querySelectorAll("table.sortable").forEach(sortable);
for (const form of document.querySelectorAll("form.tools")) {
  const table = document.getElementById(form.dataset.table);
  withColumns(form, table);
  filterable(form, table);
  form.hidden = false;
}
document.documentElement.dataset.ready = "yes";
