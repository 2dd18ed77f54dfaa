// Sorts a table by the column whose heading is chosen; entries without a value stay at the end. Whoever puts new rows
// in says so by an event "rows".
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const entry = (row, column) => {
    const cell = row.cells[column];
    if (!cell.classList.contains("number")) return cell.textContent.trim();
    return "value" in cell.dataset ? Number(cell.dataset.value) : null;
  };
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  const sort = (column, descending) => {
    const rows = [...table.tBodies[0].rows].sort((first, second) => {
      const a = entry(first, column), b = entry(second, column);
      if (a === null || b === null) return (a === null) - (b === null);
      return descending ? compare(b, a) : compare(a, b);
    });
    table.tBodies[0].append(...rows);
  };
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(column, descending);
    });
  });
  table.addEventListener("rows", () => {
    const column = headings.findIndex((heading) => heading.getAttribute("aria-sort") !== "none");
    if (column >= 0) sort(column, headings[column].getAttribute("aria-sort") === "descending");
  });
}
