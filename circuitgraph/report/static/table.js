// Tables: a click on a column's head sorts, a search narrows, a button keeps them as CSV.

/** Make the heads of a table buttons that sort its rows. */
function sortable(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = make("button", { type: "button" }, head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const numbers = head.dataset.kind === "number";
      const before = head.getAttribute("aria-sort");
      const first = numbers ? "descending" : "ascending";
      const order = before === first ? (first === "ascending" ? "descending" : "ascending") : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows].map((row) => [sortKey(row.cells[column], numbers), row]);
      rows.sort(([a], [b]) => compareKeys(a, b, sign));
      body.append(...rows.map(([, row]) => row));
    });
  });
}

/** Return what a cell is sorted by; null where it is empty. */
function sortKey(cell, numbers) {
  if (numbers) return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  return cell.textContent.trim() || null;
}

/** Compare two keys; empty cells come last in either order. */
function compareKeys(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number") return sign * (a - b);
  return sign * a.localeCompare(b, "en", { numeric: true });
}

/** Show only the rows in which a text stands. */
function narrow(table, text) {
  const wanted = text.trim().toLowerCase();
  for (const row of table.tBodies[0].rows) {
    row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
  }
}

/** Return the rows of a table that are not hidden, as comma-separated values. */
function asCsv(table) {
  const quoted = (words) => (/[",\n]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words);
  const rows = [table.tHead.rows[0], ...table.tBodies[0].rows].filter((row) => !row.hidden);
  const exact = (cell) => cell.dataset.value && !cell.textContent.includes(" to ");
  const plain = (cell) => (exact(cell) ? cell.dataset.value : cell.textContent.trim().replaceAll("−", "-"));
  return rows.map((row) => [...row.cells].map((cell) => quoted(plain(cell))).join(",")).join("\n");
}

/** Offer a text as a file. */
function keepFile(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  const anchor = make("a", { href: address, download: name });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
