// Sorting, filtering and hiding columns of the table, and the section of a cell. Texts are only ever set as text.
"use strict";
(() => {
  const STEP = 200;
  const $ = (selector, root = document) => root.querySelector(selector);
  const table = $("#rows");
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const waiting = $("#more-rows");
  const rows = [...body.rows, ...(waiting ? waiting.content.querySelectorAll("tr") : [])].map((tr, place) => ({
    tr,
    place,
    text: tr.textContent.toLowerCase(),
  }));
  const state = { words: [], chosen: new Map(), sort: null, descending: false, limit: STEP };

  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    Object.assign(element, properties);
    element.append(...children);
    return element;
  }

  const shown = (row, column) => (row.tr.cells[column].firstChild || { textContent: "" }).textContent.trim();

  function keyOf(row, column) {
    const cell = row.tr.cells[column];
    if (headings[column].classList.contains("n")) return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
    const text = shown(row, column);
    return text === "–" ? null : text;
  }

  // Numbers in a text, decimals too, go by their values: localeCompare takes 0.01 for 0, then 1.
  const parts = (text) => text.split(/(\d+(?:\.\d+)?(?:e[+-]?\d+)?)/i);

  function inOrder(one, other) {
    const [left, right] = [parts(one), parts(other)];
    for (let n = 0; n < Math.min(left.length, right.length); n++) {
      const order = n % 2 ? Number(left[n]) - Number(right[n]) : left[n].localeCompare(right[n], "en");
      if (order) return order;
    }
    return left.length - right.length;
  }

  function compare(a, b) {
    // What is unknown comes last, whichever way the column is sorted.
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.row.place - b.row.place;
    const sign = state.descending ? -1 : 1;
    const order = typeof a.key === "number" ? a.key - b.key : inOrder(a.key, b.key);
    return sign * order || a.row.place - b.row.place;
  }

  function update() {
    let found = rows.filter(
      (row) =>
        state.words.every((word) => row.text.includes(word)) &&
        [...state.chosen].every(([column, value]) => row.axes[column] === value),
    );
    if (state.sort !== null) {
      found = found.map((row) => ({ row, key: keyOf(row, state.sort) })).sort(compare).map(({ row }) => row);
    }
    body.replaceChildren(...found.slice(0, state.limit).map((row) => row.tr));
    const visible = Math.min(found.length, state.limit);
    $("#count").textContent =
      `${found.length} of ${rows.length} configurations` + (visible < found.length ? `, the first ${visible} shown` : "");
    $("#more").hidden = visible >= found.length;
    $("#more button").textContent = `Show all ${found.length}`;
  }

  function addSorting() {
    headings.forEach((th, column) => {
      const button = make("button", { type: "button" }, th.textContent);
      th.replaceChildren(button);
      button.addEventListener("click", () => {
        // Times start with the shortest, other figures with the largest, texts with the first; then the other way
        // round; then as it was.
        const first = th.classList.contains("n") && th.dataset.better !== "lower";
        if (state.sort !== column) [state.sort, state.descending] = [column, first];
        else if (state.descending === first) state.descending = !first;
        else state.sort = null;
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        keepSorted();
        if (state.sort !== null) th.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
        update();
      });
    });
  }

  function addFilters() {
    const columns = headings.map((th, column) => column).filter((column) => "filter" in headings[column].dataset);
    rows.forEach((row) => {
      row.axes = Object.fromEntries(columns.map((column) => [column, shown(row, column)]));
    });
    columns.forEach((column) => {
      const values = [...new Set(rows.map((row) => row.axes[column]))];
      if (values.length < 2) return;
      const select = make("select", {}, make("option", { value: "" }, "all"));
      values.forEach((value, n) => select.append(make("option", { value: String(n + 1) }, value)));
      select.dataset.name = headings[column].dataset.name;
      select.addEventListener("change", () => {
        if (select.value === "") state.chosen.delete(column);
        else state.chosen.set(column, values[Number(select.value) - 1]);
        state.limit = STEP;
        update();
      });
      $("#filters").append(make("label", {}, headings[column].textContent, select));
    });
    $("#search").addEventListener("input", (event) => {
      state.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      state.limit = STEP;
      update();
    });
  }

  function addColumns() {
    const style = document.head.appendChild(make("style"));
    const boxes = headings.map((th, column) => {
      const box = make("input", { type: "checkbox", defaultChecked: !("hidden" in th.dataset) });
      box.dataset.name = th.dataset.name;
      $("#columns > div").append(make("label", { className: th.classList.contains("named") ? "named" : "" }, box, th.textContent));
      return box;
    });
    const apply = () => {
      style.textContent = boxes
        .map((box, column) => (box.checked ? "" : `#rows tr > :nth-child(${column + 1}) { display: none; }`))
        .join("\n");
    };
    $("#columns > div").addEventListener("change", apply);
    $("form.controls").addEventListener("submit", (event) => event.preventDefault());
    $("form.controls").addEventListener("reset", () =>
      setTimeout(() => {
        Object.assign(state, { words: [], chosen: new Map(), sort: null, limit: STEP });
        headings.forEach((th) => th.removeAttribute("aria-sort"));
        keepSorted();
        apply();
        update();
      }),
    );
    $("#more button").addEventListener("click", () => {
      state.limit = Infinity;
      update();
    });
    apply();
    keepSorted();
  }

  // What rows are sorted by cannot be hidden, nor what names them.
  function keepSorted() {
    const headings = [...document.querySelectorAll("#rows th")];
    const first = headings.findIndex((th) => th.dataset.name === $("#rows").dataset.order);
    document.querySelectorAll("#columns input").forEach((box, column) => {
      box.disabled = box.checked && (column === 0 || column === (state.sort ?? first));
    });
  }

  // --- the section of a cell ---------------------------------------------------------------------------------

  let parsed = null;
  const details = () => (parsed ??= JSON.parse($("#details").textContent));
  const COLORS = ["#0268c0", "#e58c09", "#01aa86", "#7922fd", "#cf220a", "#e47fd0", "#b3a354", "#a6553f"];
  const SVG = "http://www.w3.org/2000/svg";

  function draw(tag, attributes, text) {
    const element = document.createElementNS(SVG, tag);
    Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
    if (text !== undefined) element.textContent = text;
    return element;
  }

  const plain = (value) => String(Number(value.toPrecision(3)));

  // Lines of [x, y] points in a small chart; `series` is [{label, points}].
  function chart(title, xLabel, yLabel, series) {
    const [width, height, left, right, top, bottom] = [420, 230, 52, 12, 10, 38];
    const points = series.flatMap((one) => one.points);
    const range = (values, zero) => {
      let [low, high] = [zero ? 0 : Math.min(...values), Math.max(...values)];
      if (high === low) [low, high] = [low - (Math.abs(low) || 1) * 0.05, high + (Math.abs(high) || 1) * 0.05];
      return [low, high];
    };
    const [x0, x1] = range(points.map(([x]) => x), true);
    const [y0, y1] = range(points.map(([, y]) => y), false);
    const x = (value) => left + ((value - x0) / (x1 - x0)) * (width - left - right);
    const y = (value) => height - bottom - ((value - y0) / (y1 - y0)) * (height - top - bottom);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
    svg.append(
      draw("path", { class: "axis", fill: "none", d: `M${left},${top}V${height - bottom}H${width - right}` }),
      draw("text", { x: left, y: height - bottom + 14, "text-anchor": "middle" }, plain(x0)),
      draw("text", { x: width - right, y: height - bottom + 14, "text-anchor": "end" }, plain(x1)),
      draw("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, xLabel),
      draw("text", { x: left - 5, y: height - bottom, "text-anchor": "end" }, plain(y0)),
      draw("text", { x: left - 5, y: top + 9, "text-anchor": "end" }, plain(y1)),
      draw("text", { transform: `translate(14 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yLabel),
    );
    series.forEach(({ label, points: own }, n) => {
      const color = COLORS[n % COLORS.length];
      const line = draw("polyline", { stroke: color, points: own.map(([a, b]) => `${x(a)},${y(b)}`).join(" ") });
      line.append(draw("title", {}, label));
      svg.append(line, ...own.slice(0, 200).map(([a, b]) => draw("circle", { cx: x(a), cy: y(b), r: 2.5, fill: color })));
    });
    const legend = series.length > 1 && series.length <= COLORS.length;
    const caption = make("figcaption", {}, title);
    if (legend) {
      series.forEach(({ label }, n) => {
        const mark = make("span", {}, " ●");
        mark.style.color = COLORS[n];
        caption.append(make("span", { className: "key" }, mark, ` ${label}`), " ");
      });
    }
    return make("figure", {}, svg, caption);
  }

  const named = (run) => `seed ${run.seed}` + (run.block ? `, block ${run.block}` : "");
  const sums = (values) => values.map(((total) => (value) => (total += value))(0));

  function charts(cell) {
    const runs = cell.r.filter((run) => run.s);
    const found = [];
    const curves = runs
      .filter((run) => run.a)
      .map((run) => ({
        label: named(run),
        points: sums(run.s).map((seconds, n) => [seconds, run.a[n]]).filter(([, accuracy]) => accuracy != null),
      }))
      .filter(({ points }) => points.length);
    if (curves.length) found.push(chart("Validation accuracy after each epoch.", "seconds of training", "accuracy", curves));
    const rounds = runs.map((run) => ({ label: named(run), points: run.s.map((seconds, n) => [n + 1, seconds]) }));
    if (rounds.length) found.push(chart("Seconds of each timed round.", "round", "seconds", rounds));
    const latencies = cell.r
      .filter((run) => run.q)
      .map((run) => ({ label: named(run), points: run.q.map((ms, n) => [5 * n, ms]) }));
    if (latencies.length) found.push(chart("Latency of one image by percentile.", "percentile", "milliseconds", latencies));
    return found;
  }

  function facts(values) {
    const list = make("dl", { className: "facts" });
    Object.entries(values).forEach(([name, value]) => list.append(make("dt", {}, name), make("dd", {}, String(value))));
    return list;
  }

  function records(cell) {
    const percent = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)} %`);
    const columns = {
      run: (run) => run.run,
      seed: (run) => String(run.seed),
      block: (run) => String(run.block ?? "–"),
      status: (run) => [run.status, run.reason, run.validity, run.why].filter(Boolean).join(": "),
      validation: (run) => percent(run.val),
      test: (run) => percent(run.test),
      "rounds, seconds": (run) => (run.s || []).map((seconds) => plain(seconds)).join(" ") || "–",
      phases: (run) => (run.p ? run.p.join(" ") : "–"),
    };
    const used = Object.entries(columns).filter(([, show]) => cell.r.some((run) => show(run) !== "–"));
    const head = make("thead", {}, make("tr", {}, ...used.map(([name]) => make("th", {}, name))));
    const lines = cell.r.map((run) => make("tr", {}, ...used.map(([, show]) => make("td", {}, show(run)))));
    return make("div", { className: "scroll", tabIndex: 0 }, make("table", {}, head, make("tbody", {}, ...lines)));
  }

  function open(key) {
    const { cells, machines } = details();
    const section = $("#cell");
    section.hidden = !Object.hasOwn(cells, key);
    section.replaceChildren();
    if (section.hidden) return;
    const cell = cells[key];
    const back = make("a", { href: "#table" }, "Back to the table");
    const environment = make("details", {}, make("summary", {}, `Environment (machine ${cell.m})`), facts(machines[cell.m]));
    section.append(
      make("h2", {}, cell.n),
      make("p", {}, "Run it again:"),
      make("pre", {}, cell.c),
      make("div", { className: "charts" }, ...charts(cell)),
      make("h3", {}, "Records"),
      records(cell),
      facts(cell.f),
      ...(cell.k ? classSections(cell.k) : []),
      environment,
      make("p", {}, back),
    );
    section.scrollIntoView();
  }

  function follow() {
    const found = /^#cell-(.+)$/.exec(location.hash);
    if (found) open(found[1]);
  }

  addFilters();
  addColumns();
  addSorting();
  update();
  $("form.controls").hidden = false;
  addEventListener("hashchange", follow);
  follow();
})();
