// Sorts and filters the catalog's table. Without it the table is whole, in the catalog's order.
"use strict";

(function () {
  const table = document.querySelector(".kc-catalog");
  const form = document.querySelector(".kc-filters");
  if (!table || !form) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  const count = document.querySelector(".kc-count");
  const select = form.elements.namedItem("sort");
  let order = { column: 0, ascending: true };

  // On a phone the rows are no boxes of a table any more; the roles keep saying what they are.
  table.setAttribute("role", "table");
  for (const part of [table.tHead, body]) part.setAttribute("role", "rowgroup");
  for (const row of table.rows) {
    row.setAttribute("role", "row");
    for (const cell of row.cells) {
      const head = row.parentElement === body ? "rowheader" : "columnheader";
      cell.setAttribute("role", cell.tagName === "TD" ? "cell" : head);
    }
  }

  // Read once: a thousand rows are compared and searched with every key that is pressed.
  const values = new Map(rows.map((row) => [row, Array.from(row.cells, (cell) => cell.dataset.value ?? cell.textContent.trim())]));
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const instances = new Map(rows.map((row) => [row, new Set(row.dataset.instances.split(" "))]));
  const collator = new Intl.Collator("en", { numeric: true });
  const AT_ONCE = 100; // more rows than that are slow to lay out, and too many to read
  const more = document.querySelector(".kc-more-rows");
  let limit = AT_ONCE;

  function compare(a, b, column, ascending) {
    const [x, y] = [values.get(a)[column], values.get(b)[column]];
    if (x === "" || y === "") return (x === "") - (y === ""); // what is unknown comes last either way
    const isNumber = heads[column].dataset.kind === "number";
    const found = isNumber ? Number(x) - Number(y) : collator.compare(x, y);
    return ascending ? found : -found;
  }

  function sort(column, ascending) {
    order = { column, ascending };
    rows.sort((a, b) => compare(a, b, column, ascending) || compare(a, b, 0, true));
    body.append(...rows);
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    select.value = `${column} ${ascending ? "up" : "down"}`;
    filter();
  }

  function filter() {
    const wanted = Object.fromEntries(new FormData(form));
    const words = (wanted.words || "").toLowerCase().split(/\s+/).filter(Boolean);
    let matching = 0;
    for (const row of rows) {
      const d = row.dataset;
      const text = texts.get(row);
      const found =
        words.every((word) => text.includes(word)) &&
        ["task", "license", "family", "status", "proof"].every((name) => !wanted[name] || d[name] === wanted[name]) &&
        (!wanted.instance || instances.get(row).has(wanted.instance)) &&
        (!wanted.context || (d.context !== "" && Number(d.context) >= Number(wanted.context))) &&
        (!wanted.memory || (d.memory !== "" && Number(d.memory) <= Number(wanted.memory)));
      matching += found;
      row.hidden = !found || matching > limit;
    }
    const all = rows.length;
    const cut = matching > limit;
    count.textContent = (matching === all ? `${all} models` : `${matching} of ${all} models`) +
      (cut ? `, the first ${limit} are shown` : "");
    more.hidden = !cut;
    more.textContent = `Show all ${matching}`;
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "kc-sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      sort(column, order.column === column ? !order.ascending : true);
    });
    for (const [direction, words] of [["up", "first to last"], ["down", "last to first"]]) {
      const option = new Option(`${button.textContent}, ${words}`, `${column} ${direction}`);
      select.append(option);
    }
  });
  select.addEventListener("change", () => {
    const [column, direction] = select.value.split(" ");
    sort(Number(column), direction === "up");
  });
  more.addEventListener("click", () => {
    const shown = rows.filter((row) => !row.hidden).length;
    limit = Infinity;
    filter();
    rows.filter((row) => !row.hidden)[shown]?.querySelector("a").focus();
  });
  form.addEventListener("input", () => {
    limit = AT_ONCE;
    filter();
  });
  form.addEventListener("reset", () => setTimeout(() => {
    limit = AT_ONCE;
    sort(0, true);
  }));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  document.documentElement.classList.add("kc-js");
  sort(0, true);
})();
