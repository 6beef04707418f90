
"use strict";
// Sorting and hiding of rows. Without this script the page has all rows, in the order of the comparison.
for (const table of document.querySelectorAll("table.controlled")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells], original = [...body.rows];
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.sort === undefined ? cell.dataset.text : Number(cell.dataset.sort);
  };
  const missing = (found) => found === "" || found === "-" || found === "--" || Number.isNaN(found);
  const compare = (one, other) =>
    typeof one === "number" && typeof other === "number"
      ? one - other
      : String(one).localeCompare(String(other), "en", { numeric: true });

  for (const row of original) for (const cell of row.cells) cell.dataset.text = cell.textContent.trim();

  const sort = (column) => {
    const head = heads[column], before = head.getAttribute("aria-sort");
    const next = { ascending: "descending", descending: null }[before] ?? (before ? null : "ascending");
    for (const other of heads) other.removeAttribute("aria-sort");
    const rows = [...original];
    if (next) {
      head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      rows.sort((left, right) => {
        const one = value(left, column), other = value(right, column);
        return missing(one) - missing(other) || (missing(one) ? 0 : sign * compare(one, other));
      });
    }
    body.append(...rows);
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
  });

  const controls = document.createElement("div"), label = document.createElement("label");
  const filter = document.createElement("input"), all = document.createElement("button");
  const hidden = new Set();
  const update = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let gone = 0;
    for (const row of original) {
      const text = [...row.cells].map((cell) => cell.dataset.text).join(" ").toLowerCase();
      row.hidden = hidden.has(row) || !words.every((word) => text.includes(word));
      gone += row.hidden;
    }
    all.hidden = !gone;
    all.textContent = `Show all rows (${gone} hidden)`;
  };
  controls.className = "controls";
  filter.type = "search";
  label.append("Rows with ", filter);
  all.type = "button";
  filter.addEventListener("input", update);
  all.addEventListener("click", () => { hidden.clear(); filter.value = ""; update(); filter.focus(); });
  controls.append(label, all);
  table.parentElement.before(controls);
  for (const row of original) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "hide";
    button.textContent = "×";
    button.title = "Hide this row";
    const labels = [...row.cells].filter((cell) => cell.scope === "row").map((cell) => cell.dataset.text);
    button.setAttribute("aria-label", `Hide ${labels.filter(Boolean).join(", ")}`);
    button.addEventListener("click", () => { hidden.add(row); update(); all.focus(); });
    row.cells[0].prepend(button);
  }
  update();
}

// What is folded away on the screen is printed.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const part of closed) part.open = true;
});
addEventListener("afterprint", () => { for (const part of closed) part.open = false; });
