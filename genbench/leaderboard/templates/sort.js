"use strict";
// Sorts the models of a table by the column whose heading is pressed; controls keep their place, empty cells go last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.querySelector("tbody.models");
  table.querySelectorAll("thead tr:last-child th").forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const first = Number(head.dataset.way) < 0 ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      table.querySelectorAll("thead tr:last-child th").forEach((th) => th.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const key = (row) => { const cell = row.cells[column]; return cell.dataset.sort ?? cell.textContent.trim().replaceAll("\u202f", ""); };
      const sign = order === "ascending" ? 1 : -1;
      const compare = (a, b) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        const difference = Number(a) - Number(b);
        return sign * (Number.isNaN(difference) ? a.localeCompare(b) : difference);
      };
      const rows = [...body.rows].filter((row) => row.cells.length > column);
      rows.sort((a, b) => compare(key(a), key(b))).forEach((row) => body.append(row));
    });
  });
}
