(() => {
  "use strict";
  const table = document.querySelector("#classes");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const status = document.querySelector("#sorted");
  const original = [...body.rows];

  const keyOf = (row, column) => row.cells[column].dataset.value;

  const compare = (column, direction) => (a, b) => {
    const x = keyOf(a, column), y = keyOf(b, column);
    if (column === 0) return direction * x.localeCompare(y);
    if (x === "" || y === "") return (x === "") - (y === ""); // the unknown stay last either way
    return direction * (Number(x) - Number(y));
  };

  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const first = column === 0 ? "ascending" : "descending";
      const second = column === 0 ? "descending" : "ascending";
      const next = now === first ? second : now === second ? "none" : first;
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", next);
      const rows = next === "none" ? original : [...original].sort(compare(column, next === "ascending" ? 1 : -1));
      body.append(...rows);
      const label = button.dataset.label;
      status.textContent = next === "none" ? "In class order" : `Sorted by ${label}, ${next}`;
    });
  });

  const filter = document.querySelector("#filter");
  if (filter) {
    filter.addEventListener("input", () => {
      const wanted = filter.value.trim().toLowerCase();
      original.forEach((row) => { row.hidden = !keyOf(row, 0).toLowerCase().includes(wanted); });
    });
  }

  const opacity = document.querySelector("#opacity");
  if (opacity) {
    const apply = () => document.documentElement.style.setProperty("--mask", opacity.value / 100);
    opacity.addEventListener("input", apply);
    apply();
  }
})();
