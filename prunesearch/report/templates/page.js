// The table of trials: all of them are in memory, one page of them is in the document.
(() => {
  "use strict";
  const ROWS = 50;
  const { columns, trials } = JSON.parse(document.getElementById("trials-data").textContent);
  const at = Object.fromEntries(columns.map((column, i) => [column, i]));
  const element = (id) => document.getElementById(`trials-${id}`);
  const headers = [...document.querySelectorAll("#trials th")];
  const body = document.querySelector("#trials tbody");
  const count = (value) => value.toLocaleString("en-US");

  const shown = { column: "score", descending: true, first: 0 };

  const written = {
    structure: (row) => row[at.structure].join(" "),
    macs: (row) => count(row[at.macs]),
    params: (row) => count(row[at.params]),
    score: (row) => (row[at.score] === null ? row[at.failure] : row[at.score].toPrecision(6)),
    seconds: (row) => row[at.seconds].toFixed(3),
  };
  const text = (row, column) => String((written[column] ?? ((r) => r[at[column]]))(row));

  const compare = (a, b) => {
    if (Array.isArray(a)) return a.map((width, i) => width - b[i]).find((difference) => difference) ?? 0;
    return typeof a === "number" ? a - b : a.localeCompare(b);
  };

  const selected = () => {
    const study = element("study");
    const rows = study.selectedIndex === 0 ? [...trials] : trials.filter((row) => row[at.study] === study.value);
    const key = at[shown.column];
    return rows.sort((a, b) => {
      if (a[key] === null || b[key] === null) return (a[key] === null) - (b[key] === null); // failures stay last
      return shown.descending ? compare(b[key], a[key]) : compare(a[key], b[key]);
    });
  };

  const line = (row) => {
    const tr = document.createElement("tr");
    for (const { dataset } of headers) {
      const td = document.createElement("td");
      td.className = dataset.column;
      td.textContent = text(row, dataset.column); // never innerHTML: this is text of the database
      tr.append(td);
    }
    return tr;
  };

  const show = () => {
    const rows = selected();
    const end = Math.min(shown.first + ROWS, rows.length);
    body.replaceChildren(...rows.slice(shown.first, end).map(line));
    element("position").textContent = `${count(rows.length && shown.first + 1)} to ${count(end)} of ${count(rows.length)}`;
    element("previous").disabled = shown.first === 0;
    element("next").disabled = end === rows.length;
    for (const header of headers) {
      const direction = shown.descending ? "descending" : "ascending";
      header.setAttribute("aria-sort", header.dataset.column === shown.column ? direction : "none");
    }
  };

  const change = (changes) => {
    Object.assign(shown, changes);
    show();
  };

  for (const header of headers) {
    const { column } = header.dataset;
    header.firstElementChild.addEventListener("click", () => {
      change({ column, descending: shown.column === column ? !shown.descending : column === "score", first: 0 });
    });
  }
  element("study").addEventListener("change", () => change({ first: 0 }));
  element("previous").addEventListener("click", () => change({ first: shown.first - ROWS }));
  element("next").addEventListener("click", () => change({ first: shown.first + ROWS }));
  show();
})();
