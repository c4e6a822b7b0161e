// The bar above a wall: search, order, range of a metric, size. It changes `state` and calls `changed`.
(function () {
  "use strict";
  const { el } = VITAL;

  function select(label, options, value, changed) {
    const box = el("select", { "aria-label": label, on: { change: () => changed(box.value) } },
      options.map(([key, text]) => el("option", { value: key, selected: key === value }, text)));
    return box;
  }

  // Waits until typing pauses: the wall is laid out anew for every change.
  function paused(action) {
    let timer = 0;
    return function () {
      clearTimeout(timer);
      timer = setTimeout(action, 90);
    };
  }

  function searchBox(layer, state, changed) {
    const words = layer.names ? "Name" : layer.indexes.labels ? "Label" : "";
    const hints = ["7, 20:32 finds neurons by number", layer.indexes.labels && layer.names
      ? "label:WORD by the labels of their references" : "", layer.indexes.photographs
      ? "image:NAME those that a photograph excites, by the beginning of its file's name" : ""].filter(Boolean);
    const box = el("input", { type: "search", id: "search", placeholder: words ? words + " or number" : "7, 20:32",
      "aria-label": words ? "Search by " + words.toLowerCase() + " or number" : "Search by number, e.g. 7, 20:32",
      value: state.q, title: hints.join("; "),
      autocomplete: "off", spellcheck: "false", enterkeyhint: "search" });
    box.addEventListener("input", paused(function () { state.q = box.value; changed(); }));
    return el("label", { class: "field search" }, el("span", { class: "unseen" }, "Search"), box, el("kbd", null, "/"));
  }

  function orderBox(layer, state, changed) {
    const turn = el("button", { type: "button", class: "quiet icon", "aria-pressed": String(state.down),
      "aria-label": "Descending", title: "Turn the order round", on: { click: function () {
        state.down = !state.down;
        shown();
        changed();
      } } }, "↑");
    function shown() {
      turn.textContent = state.down ? "↓" : "↑";
      turn.setAttribute("aria-pressed", String(state.down));
      turn.hidden = state.order === "similarity";
    }
    const box = select("Order by", VITAL.orders(layer), state.order, function (value) {
      state.order = value;
      // frequency and metrics are looked at from the greatest down
      state.down = value.startsWith("column");
      shown();
      changed();
    });
    shown();
    return el("label", { class: "field" }, el("span", null, "Order"), box, turn);
  }

  function rangeBox(layer, state, changed) {
    const columns = layer.columns.map((column, i) => [column, String(i)])
      .filter(([column]) => column.ends);
    if (!columns.length) return null;
    const note = el("span", { class: "note" });
    const ends = ["min", "max"].map((end) => el("input", { type: "number", step: "any", value: state[end],
      "aria-label": (end === "min" ? "At least" : "At most"), inputmode: "decimal" }));
    ends.forEach((box, i) => box.addEventListener("input", paused(function () {
      state[i ? "max" : "min"] = box.value;
      changed();
    })));
    function shown() {
      const column = layer.columns[Number(state.metric)];
      const chosen = state.metric !== "" && column;
      ends.forEach((box) => { box.hidden = !chosen; });
      note.hidden = !chosen;
      if (!chosen) return;
      ends.forEach((box, i) => { box.placeholder = VITAL.number(column.ends[i]); });
      note.textContent = column.meaning + (column.units ? " (" + column.units + ")" : "");
      note.title = note.textContent;
    }
    const choices = [["", "Everything"], ...columns.map(([column, i]) => [i, VITAL.capital(column.name)])];
    const box = select("Show a range of", choices, state.metric, function (value) {
      state.metric = value;
      state.min = state.max = ends[0].value = ends[1].value = "";
      shown();
      changed();
    });
    shown();
    return el("label", { class: "field range" }, el("span", null, "Show"), box, ends[0], el("i", null, "–"), ends[1], note);
  }

  function sizeBox(wall) {
    const { smallest, greatest } = VITAL.sizes;
    const toSlider = (size) => (Math.log(size / smallest) / Math.log(greatest / smallest)) * 100;
    const slider = el("input", { type: "range", min: "0", max: "100", step: "1", "aria-label": "Size of the pictures",
      title: "Size of the pictures (+ and −)", value: toSlider(wall.size) });
    slider.addEventListener("input", () => wall.zoom(smallest * Math.pow(greatest / smallest, slider.value / 100)));
    const before = wall.zoomed;
    wall.zoomed = function (size) {
      slider.value = toSlider(size);
      before(size);
    };
    const button = (text, label, direction) => el("button", { type: "button", class: "quiet icon", "aria-label": label,
      on: { click: () => wall.step(direction) } }, text);
    return el("div", { class: "field size" }, button("−", "Smaller pictures", -1), slider, button("+", "Larger pictures", 1));
  }

  VITAL.bar = function (layer, state, wall, changed) {
    const count = el("span", { class: "count", id: "count" });
    const bar = el("div", { class: "bar", role: "search" }, searchBox(layer, state, changed), orderBox(layer, state, changed),
      rangeBox(layer, state, changed), sizeBox(wall), count);
    return { bar, count };
  };
})();
