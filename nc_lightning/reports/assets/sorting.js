// Sort a table by the column whose heading is clicked: numbers by value, cells without a value last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if ([...body.rows].every(row => row.cells[column].dataset.value === "")) return;
    const button = document.createElement("button");
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.ariaSort === "ascending";
      heads.forEach(other => { other.ariaSort = null; });
      head.ariaSort = descending ? "descending" : "ascending";
      const value = row => row.cells[column].dataset.value;
      const compare = (one, other) => isNaN(one) || isNaN(other) ? one.localeCompare(other) : one - other;
      const sorted = [...body.rows].sort((a, b) => {
        const [one, other] = [value(a), value(b)];
        if (one === "" || other === "") return (one === "") - (other === "");
        return descending ? compare(other, one) : compare(one, other);
      });
      body.append(...sorted);
    });
  });
}
