// What the section of a cell shows of its classes: what is taken for what, reliability, a table of the classes, and the
// surest mistakes. Texts are only ever set as text.
"use strict";
const classSections = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const [RIGHT, MISTAKEN] = ["#7d8590", "#a3195b"]; // as in figures/confusion.png
  const FIRST_ROWS = 20;
  const WIDTH = 360;
  const [LETTERS, LETTER] = [15, 6.6]; // most letters of a name beside a matrix, and the room for one

  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    Object.assign(element, properties);
    element.append(...children);
    return element;
  }

  function draw(tag, attributes, text) {
    const element = document.createElementNS(SVG, tag);
    Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
    if (text !== undefined) element.textContent = text;
    return element;
  }

  const picture = (title, height, ...children) => {
    const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": title });
    svg.append(...children);
    return svg;
  };
  const entries = (list) => make("ul", { className: "list" }, ...list.map((text) => make("li", {}, text)));
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const count = (number) => number.toLocaleString("en");
  // So that four digits are the most: 12345 is 12k.
  const short = (number) =>
    number < 1e4 ? String(number) : number < 1e6 ? `${Math.round(number / 1e3)}k` : `${Math.round(number / 1e6)}M`;

  // Names of at most so many characters, of which those that differ still do: beginning and end, or a number.
  function fitted(names, most) {
    const cut = names.map((name) => {
      const chars = [...name];
      if (chars.length <= most) return name;
      const end = Math.floor((most - 1) / 2);
      return `${chars.slice(0, most - 1 - end).join("")}…${chars.slice(chars.length - end).join("")}`;
    });
    return cut.map((name, n) => {
      const same = cut.map((other, m) => (other === name ? m : -1)).filter((m) => m >= 0);
      return same.length > 1 ? `${[...name].slice(0, most - 3).join("")} #${same.indexOf(n) + 1}` : name;
    });
  }

  // --- what is taken for what ----------------------------------------------------------------------------------

  function square(x, y, width, height, right, share, words) {
    const attributes = { x, y, width, height, fill: right ? RIGHT : MISTAKEN };
    const rect = draw("rect", { ...attributes, "fill-opacity": (0.1 + 0.7 * Math.sqrt(share)).toFixed(3) });
    rect.append(draw("title", {}, words));
    return rect;
  }

  function told(matrix, row, column, answers) {
    const { names, asked } = matrix;
    const other = column < names.length ? names[column] : "another class";
    const what = row === column ? "recognised" : `taken for ${other}`;
    return `${count(answers)} of ${count(asked[row])} ${names[row]}: ${what}`;
  }

  // A matrix with names and figures.
  function named(matrix, title) {
    const { names, asked, cells, others } = matrix;
    const letters = Math.min(LETTERS, Math.max(...names.map((name) => [...name].length)));
    const room = 6 + LETTER * letters;
    const columns = names.length + (others ? 1 : 0);
    const across = (WIDTH - room - 4) / columns;
    const down = Math.min(across, 30);
    const upright = LETTER * letters > across;
    const top = upright ? 6 + LETTER * Math.max(letters, others ? 9 : 0) : 18;
    const shortNames = fitted(names, LETTERS);
    const size = Math.min(11, across / 2.4);
    const parts = [];
    for (let n = 0; n <= names.length; n++) {
      const y = top + n * down;
      parts.push(draw("path", { class: "grid", d: `M${room},${y}H${room + columns * across}` }));
    }
    for (let n = 0; n <= columns; n++) {
      const x = room + n * across;
      parts.push(draw("path", { class: "grid", d: `M${x},${top}V${top + names.length * down}` }));
    }
    cells.forEach(([row, column, answers]) => {
      const [x, y] = [room + column * across, top + row * down];
      parts.push(square(x, y, across, down, row === column, answers / asked[row], told(matrix, row, column, answers)));
      const place = { x: x + across / 2, y: y + down / 2 + size * 0.36, "text-anchor": "middle", class: "figure" };
      parts.push(draw("text", { ...place, style: `font-size: ${size.toFixed(1)}px` }, short(answers)));
    });
    shortNames.forEach((name, n) => {
      const text = draw("text", { x: room - 4, y: top + n * down + down / 2 + 3.5, "text-anchor": "end" }, name);
      text.append(draw("title", {}, names[n]));
      parts.push(text);
    });
    [...shortNames, ...(others ? ["any other"] : [])].forEach((name, n) => {
      const [x, y] = [room + n * across + across / 2, top - 4];
      const place = upright
        ? { transform: `translate(${(x + 3.5).toFixed(1)} ${y}) rotate(-90)` }
        : { x, y, "text-anchor": "middle" };
      const text = draw("text", place, name);
      text.append(draw("title", {}, names[n] ?? "any other class"));
      parts.push(text);
    });
    return picture(title, top + names.length * down + 4, ...parts);
  }

  // A matrix of many classes, which only pointing at a square names.
  function whole(matrix, title) {
    const { names, asked, cells } = matrix;
    const [left, top] = [16, 16];
    const side = (WIDTH - left - 2) / names.length;
    const end = left + names.length * side;
    const parts = cells.map(([row, column, answers]) => {
      const [x, y] = [left + column * side, top + row * side];
      return square(x, y, side, side, row === column, answers / asked[row], told(matrix, row, column, answers));
    });
    return picture(
      title,
      top + names.length * side + 2,
      draw("path", { class: "grid", d: `M${left},${top}H${end}V${top + names.length * side}H${left}Z` }),
      draw("text", { x: end, y: 11, "text-anchor": "end" }, "taken for"),
      draw("text", { transform: `translate(11 ${top + names.length * side}) rotate(-90)` }, "true class"),
      ...parts,
    );
  }

  function confusion(known) {
    const found = [];
    const rows = "a row holds the images of a class, a column what they were taken for.";
    if (known.block) {
      const number = known.block.names.length;
      const which = known.block.others ? `The ${number} classes that are most often mistaken` : "All classes";
      found.push(make("figure", {}, named(known.block, "What is taken for what"), make("figcaption", {}, `${which}: ${rows}`)));
    }
    if (known.whole) {
      const words = `All ${known.whole.names.length} classes, those that are taken for each other side by side. `;
      const read = make("span", {}, "Point at a square to read it.");
      const svg = whole(known.whole, "What is taken for what, all classes");
      const say = ({ target }) => {
        if (target.tagName === "rect") read.textContent = `${target.textContent}.`;
      };
      svg.addEventListener("pointerover", say);
      svg.addEventListener("pointerdown", say); // a finger
      found.push(make("figure", {}, svg, make("figcaption", {}, words, read)));
    }
    return found;
  }

  // --- reliability ---------------------------------------------------------------------------------------------

  function reliability(known) {
    const [left, right, top, bottom, strip] = [40, 8, 8, 34, 40];
    const high = 200;
    const width = (WIDTH - left - right) / known.bins.length;
    const x = (share) => left + share * (WIDTH - left - right);
    const y = (share) => top + (1 - share) * high;
    const most = Math.max(...known.bins.map(([answers]) => answers));
    const floor = top + high + strip;
    const parts = [];
    known.bins.forEach(([answers, confidence, share], n) => {
      if (!answers) return;
      const [low, above] = [n / known.bins.length, (n + 1) / known.bins.length].map(percent);
      const words = `${count(answers)} answers of ${low} to ${above} confidence (mean ${percent(confidence)}): ${percent(share)} right`;
      const bars = [
        draw("rect", { x: x(n / known.bins.length) + 1, y: y(share), width: width - 2, height: share * high, class: "right" }),
        draw("rect", { x: x(n / known.bins.length) + 1, y: floor - (strip * answers) / most, width: width - 2, height: (strip * answers) / most, class: "count" }),
        draw("circle", { cx: x(confidence), cy: y(share), r: 3, class: "mean" }),
      ];
      const place = `translate(${(x((n + 0.5) / known.bins.length) + 3.2).toFixed(1)} ${floor - 3}) rotate(-90)`;
      bars.push(draw("text", { transform: place, style: "font-size: 9.5px" }, short(answers)));
      bars.forEach((bar) => bar.append(draw("title", {}, words)));
      parts.push(...bars);
    });
    parts.push(draw("path", { class: "axis", d: `M${x(0)},${y(0)}L${x(1)},${y(1)}` }));
    parts.push(draw("path", { class: "axis", d: `M${left},${top}V${top + high}H${WIDTH - right}` }));
    [0, 0.2, 0.4, 0.6, 0.8, 1].forEach((share) => {
      const words = `${Math.round(100 * share)} %`;
      parts.push(draw("text", { x: left - 4, y: y(share) + 4, "text-anchor": "end" }, words));
      const anchor = share === 1 ? "end" : "middle";
      parts.push(draw("text", { x: x(share) + (share === 1 ? right : 0), y: floor + 13, "text-anchor": anchor }, words));
    });
    parts.push(draw("text", { x: (left + WIDTH) / 2, y: floor + bottom - 6, "text-anchor": "middle" }, "confidence"));
    const words = "Share of answers that is right, by confidence; below, how many answers. On the line a confidence is what it says.";
    return make("figure", {}, picture("Reliability", floor + bottom, ...parts), make("figcaption", {}, words));
  }

  // --- the table of the classes --------------------------------------------------------------------------------

  function table(known) {
    // Heading, what it is sorted by, whether it is a number, what is shown.
    const trained = known.classes.some((line) => line[1] !== null);
    const learned = (line) => make("small", { className: "narrow" }, `${line[1] === null ? "–" : count(line[1])} train`);
    const columns = [
      ["class", (line) => line[0], false, (line) => [line[0]]],
      ["accuracy", (line) => line[4], true, (line) => [line[5], ...(line[6] ? [make("small", {}, line[6])] : [])]],
      ["test images", (line) => line[2], true, (line) => [line[3], ...(trained ? [learned(line)] : [])]],
      ...(trained ? [["training images", (line) => line[1], true, (line) => [line[1] === null ? "–" : count(line[1])], "named"]] : []),
      ["most often taken for", (line) => line[7], false, (line) => (line[7] ? [line[7], make("small", {}, line[8])] : ["–"])],
    ];
    const state = { sort: null, descending: false, limit: FIRST_ROWS };
    const body = make("tbody");
    const more = make("button", { type: "button" }, `Show all ${known.classes.length} classes`);
    const lines = known.classes.map((line, place) => {
      const cells = columns.map(([, , number, show, kind = ""]) => make("td", { className: `${number ? "n " : ""}${kind}` }, ...show(line)));
      return { line, place, tr: make("tr", {}, ...cells) };
    });
    const headings = columns.map(([heading, , number, , kind = ""], column) => {
      const button = make("button", { type: "button" }, heading);
      const th = make("th", { className: `${number ? "n " : ""}${kind}` }, button);
      button.addEventListener("click", () => {
        if (state.sort !== column) [state.sort, state.descending] = [column, false];
        else if (!state.descending) state.descending = true;
        else state.sort = null;
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        if (state.sort !== null) th.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
        update();
      });
      return th;
    });

    function update() {
      const sorted = [...lines];
      if (state.sort !== null) {
        const key = columns[state.sort][1];
        const sign = state.descending ? -1 : 1;
        sorted.sort((a, b) => {
          const [one, other] = [key(a.line), key(b.line)];
          const unknown = (value) => value === null || value === "";
          if (unknown(one) || unknown(other)) return unknown(one) - unknown(other) || a.place - b.place;
          const order = typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true });
          return sign * order || a.place - b.place;
        });
      }
      body.replaceChildren(...sorted.slice(0, state.limit).map(({ tr }) => tr));
      more.hidden = lines.length <= state.limit;
    }

    more.addEventListener("click", () => {
      state.limit = Infinity;
      update();
    });
    update();
    const inner = make("table", { className: "classes" }, make("thead", {}, make("tr", {}, ...headings)), body);
    return [make("div", { className: "scroll", tabIndex: 0 }, inner), make("p", {}, more)];
  }

  // --- the surest mistakes -------------------------------------------------------------------------------------

  function mistakes(known) {
    const cards = known.wrong.map((one) => {
      const words = [
        make("b", {}, one.true),
        make("span", {}, `taken for ${one.taken}`),
        make("span", {}, `${one.sure} sure${one.models ? `, ${one.models}` : ""}`),
        ...(one.file ? [make("small", {}, one.file)] : []),
      ];
      const image = one.image ? [make("img", { src: one.image, alt: `An image of ${one.true}`, loading: "lazy" })] : [];
      return make("li", {}, ...image, ...words);
    });
    return [make("ul", { className: "mistakes" }, ...cards), ...known.without.map((text) => make("p", { className: "hint" }, text))];
  }

  // Returns the elements of all sections for what is known of the classes of a cell.
  return (known) => {
    const found = [];
    if (known.classes) {
      found.push(make("h3", {}, "What is taken for what"), make("p", {}, known.asked));
      if (known.pairs.length) {
        found.push(entries(known.pairs));
        if (known.more) found.push(make("p", { className: "hint" }, `and ${count(known.more)} more pairs of classes, with fewer answers.`));
      } else found.push(make("p", {}, "Every answer is right."));
      found.push(make("div", { className: "charts" }, ...confusion(known)));
      found.push(make("h3", {}, "Class by class"));
      found.push(make("p", { className: "hint" }, "The least accurate first; small figures are the 95 % interval. Choose a heading to sort."));
      found.push(...table(known));
    }
    if (known.bins) {
      found.push(make("h3", {}, "Is a confidence worth what it says?"), make("p", {}, known.calibration));
      found.push(make("div", { className: "charts" }, reliability(known)));
    }
    if (known.wrong && known.wrong.length) found.push(make("h3", {}, "Surest mistakes on test images"), ...mistakes(known));
    if (known.lacks) found.push(make("p", { className: "hint" }, known.lacks));
    return found;
  };
})();
