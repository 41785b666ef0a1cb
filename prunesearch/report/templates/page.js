"use strict";
const data = JSON.parse(document.getElementById("trials-data").textContent);
const at = Object.fromEntries(data.columns.map((column, i) => [column, i]));
const count = (value) => value.toLocaleString("en-US");
const significant = (value, digits) => String(Number(value.toPrecision(digits)));
const source = (row) => data.sources[row[at.study]];

// Nothing below ever becomes markup: texts of the database go through textContent only.
const written = {
  study: (row) => source(row).name,
  searcher: (row) => data.searchers[row[at.searcher]],
  structure: (row) => row[at.structure].join(" "),
  macs: (row) => count(row[at.macs]),
  params: (row) => count(row[at.params]),
  latency: (row) => (row[at.latency] === null ? "–" : significant(row[at.latency], 4)),
  score: (row) => (row[at.score] === null ? row[at.failure] : significant(row[at.score], 6)),
  seconds: (row) => row[at.seconds].toFixed(3),
  number: (row) => String(row[at.number]),
};

// The table of trials: all of them are in memory, one page of them is in the document.
(() => {
  const ROWS = matchMedia("(max-width: 63rem)").matches ? 10 : 50; // cards are higher than rows
  const element = (id) => document.getElementById(`trials-${id}`);
  const headers = [...document.querySelectorAll("#trials th")];
  const body = document.querySelector("#trials tbody");
  const collator = new Intl.Collator("en", { numeric: true });
  const shown = { column: "score", descending: true, first: 0 };
  let rows = [];

  const keys = {
    study: (row) => source(row).name,
    searcher: (row) => data.searchers[row[at.searcher]],
    structure: (row) => row[at.structure],
  };
  const compare = (a, b) => {
    if (typeof a === "number") return a - b;
    if (typeof a === "string") return collator.compare(a, b);
    for (let i = 0; i < Math.min(a.length, b.length); i++) if (a[i] !== b[i]) return a[i] - b[i];
    return a.length - b.length;
  };

  const select = () => {
    const wanted = element("study").value;
    const state = element("state").value;
    const words = element("find").value.toLowerCase().split(/\s+/).filter(Boolean).join(" ");
    const text = (row) => [written.structure(row), written.searcher(row), row[at.failure] ?? ""].join("\n").toLowerCase();
    const key = keys[shown.column] ?? ((row) => row[at[shown.column]]);
    rows = data.trials
      .filter((row) => wanted === "" || row[at.study] === Number(wanted))
      .filter((row) => state === "all" || (row[at.score] !== null) === (state === "scored"))
      .filter((row) => words === "" || text(row).includes(words))
      .map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // what has no value stays last
      return shown.descending ? compare(b, a) : compare(a, b);
    });
  };

  const line = ([, row]) => {
    const tr = document.createElement("tr");
    for (const { dataset } of headers) {
      const td = document.createElement("td");
      td.className = dataset.column;
      td.dataset.title = dataset.title;
      td.textContent = written[dataset.column](row);
      tr.append(td);
    }
    return tr;
  };

  const show = () => {
    const last = Math.max(0, Math.floor((rows.length - 1) / ROWS) * ROWS);
    shown.first = Math.min(Math.max(0, shown.first), last);
    const end = Math.min(shown.first + ROWS, rows.length);
    body.replaceChildren(...rows.slice(shown.first, end).map(line));
    element("position").textContent = rows.length
      ? `${count(shown.first + 1)} to ${count(end)} of ${count(rows.length)}`
      : "No trial is like that.";
    element("first").disabled = element("previous").disabled = shown.first === 0;
    element("last").disabled = element("next").disabled = end === rows.length;
    for (const header of headers) {
      const direction = shown.descending ? "descending" : "ascending";
      header.setAttribute("aria-sort", header.dataset.column === shown.column ? direction : "none");
    }
  };

  const reorder = (changes) => {
    Object.assign(shown, { first: 0 }, changes);
    select();
    show();
  };
  const turn = (first) => {
    shown.first = first;
    show();
  };

  for (const header of headers) {
    const { column } = header.dataset;
    const button = document.createElement("button"); // made here: without a script there is nothing to press
    button.type = "button";
    button.textContent = header.textContent;
    header.replaceChildren(button);
    button.addEventListener("click", () => {
      reorder({ column, descending: shown.column === column ? !shown.descending : column === "score" });
    });
  }
  for (const id of ["study", "state"]) element(id).addEventListener("change", () => reorder({}));
  element("find").addEventListener("input", () => reorder({}));
  element("first").addEventListener("click", () => turn(0));
  element("previous").addEventListener("click", () => turn(shown.first - ROWS));
  element("next").addEventListener("click", () => turn(shown.first + ROWS));
  element("last").addEventListener("click", () => turn(rows.length));
  document.querySelector(".controls").hidden = false;
  reorder({});
})();

// Points of the figures say which trial they are when a pointer is near.
(() => {
  const NEAR = 18; // pixels
  const tip = document.getElementById("tip");
  const positions = new Map();
  const seen = {};
  for (const row of data.trials) {
    const { study } = source(row);
    seen[study] = (seen[study] ?? 0) + 1;
    positions.set(row, seen[study]);
  }
  const value = (row, field) => (field === "position" ? positions.get(row) : row[at[field]]);

  const nearest = (plot, x, y) => {
    const { dataset } = plot;
    const [left, right, low, high] = dataset.range.split(" ").map(Number);
    const { width, height } = plot.getBoundingClientRect();
    const across = (share, size) => size * Math.min(1, Math.max(0, share));
    let found = null;
    let least = NEAR * NEAR;
    for (const row of data.trials) {
      const [a, b] = [value(row, dataset.x), value(row, dataset.y)];
      if (a === null || b === null || String(source(row).group) !== dataset.group) continue;
      const dx = across((a - left) / (right - left), width) - x;
      const dy = across((high - b) / (high - low), height) - y;
      const distance = dx * dx + dy * dy;
      if (distance < least) [found, least] = [row, distance];
    }
    return found;
  };

  const describe = (row) => {
    const lines = [`${source(row).name}, trial ${written.number(row)}`, `score ${written.score(row)}`];
    lines.push(`${written.macs(row)} MACs, ${written.params(row)} parameters`);
    if (row[at.latency] !== null) lines.push(`predicted ${written.latency(row)} ms`);
    return lines.join("\n");
  };

  for (const plot of document.querySelectorAll(".plot[data-x]")) {
    const area = plot.parentElement;
    const point = (event) => {
      const box = plot.getBoundingClientRect();
      const row = nearest(plot, event.clientX - box.left, event.clientY - box.top);
      tip.hidden = row === null;
      if (row === null) return;
      tip.textContent = describe(row);
      const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
      tip.style.left = `${Math.max(4, Math.min(event.pageX + 14, window.scrollX + room))}px`;
      tip.style.top = `${event.pageY + 14}px`;
    };
    area.addEventListener("pointermove", point);
    area.addEventListener("pointerdown", point);
    area.addEventListener("pointerleave", () => (tip.hidden = true));
  }
})();

for (const button of document.querySelectorAll(".copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = document.getElementById(button.dataset.of);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      window.getSelection().selectAllChildren(code); // where a page may not write to the clipboard
      button.textContent = "Selected";
    }
  });
}
