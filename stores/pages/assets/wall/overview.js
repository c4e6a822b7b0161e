// A layer: all its pictures as a wall, with the bar above it.
(function () {
  "use strict";
  const { el } = VITAL;
  const USUAL = { q: "", order: "index", down: false, metric: "", min: "", max: "", size: "" };

  function stateOf(query) {
    const said = new URLSearchParams(query);
    const state = { ...USUAL };
    for (const key of Object.keys(USUAL)) if (said.has(key)) state[key] = said.get(key);
    state.down = state.down === "1";
    return state;
  }

  function queryOf(state) {
    const said = new URLSearchParams();
    for (const [key, value] of Object.entries(state)) {
      if (value !== USUAL[key] && value !== "") said.set(key, value === true ? "1" : value);
    }
    const text = said.toString();
    return text && "?" + text;
  }

  function usualSize() {
    return window.innerWidth < 600 ? 100 : 124;
  }

  function counted(layer) {
    const what = VITAL.isClasses(layer) ? "classes" : "neurons";
    const made = layer.made.length, all = layer.status.length;
    if (made === all) return all + " " + what;
    const reasons = layer.missing.map(([code, count]) => count + ": " + (layer.meanings[code] || "unknown"));
    return made + " of " + all + " " + what + " have pictures — " + reasons.join("; ");
  }

  // The order last seen, for the neighbours of a neuron's page.
  VITAL.sequence = { place: "", neurons: [], back: "" };

  function empty(layer, rows) {
    if (rows.length) return "";
    return layer.made.length ? "Nothing fits. Change the search or the range." : "No pictures yet.";
  }

  VITAL.overview = function (layer, query, main) {
    const state = stateOf(query);
    if (!VITAL.orders(layer).some(([key]) => key === state.order)) state.order = "index";
    let rows = [];
    const nothing = el("p", { class: "empty", hidden: true });
    const wall = new VITAL.Wall({
      size: Number(state.size) || usualSize(),
      cell: function (index) {
        const neuron = layer.made[rows[index]];
        return { href: VITAL.link(layer.place, neuron), label: VITAL.alt(layer, neuron),
          caption: VITAL.caption(layer, neuron),
          paint: (node, pixels) => VITAL.paint(node, layer, neuron, pixels) };
      },
      zoomed: function (size) { state.size = String(Math.round(size)); remember(); },
      recolumned: arrange,
    });
    const { bar, count } = VITAL.bar(layer, state, wall, changed);
    const site = VITAL.site();
    const more = el("div", { class: "under" });
    main.append(el("div", { class: "title" }, el("h1", null, VITAL.heading(layer)), el("p", { class: "quiet" }, counted(layer))),
      bar, wall.host, nothing, more);

    function arrange(columns) {
      rows = VITAL.arranged(layer, state, columns || wall.columns || 8);
      VITAL.sequence = { place: layer.place, neurons: rows.map((row) => layer.made[row]), back: "" };
      remember();
    }

    function remember() {
      VITAL.sequence.back = VITAL.link(layer.place) + queryOf(state);
      VITAL.settle(VITAL.sequence.back);
    }

    function changed() {
      const awaited = VITAL.awaited(layer, state.q);
      if (awaited) awaited.then(() => { if (wall.host.isConnected) changed(); }, () => {});
      arrange();
      wall.show(rows.length);
      count.textContent = rows.length === layer.made.length ? "" : rows.length + " of " + layer.made.length;
      VITAL.say(rows.length + " pictures");
      nothing.textContent = empty(layer, rows);
      nothing.hidden = rows.length > 0;
      selection();
    }

    function selection() {
      const atlas = site.atlases[Number(layer.place.split("/")[0])];
      const chosen = VITAL.ranges(rows.map((row) => layer.made[row]));
      const line = "vital export " + VITAL.quoted(atlas.url) + " --layer " + VITAL.quoted(layer.name) +
        (rows.length === layer.made.length ? "" : " --neurons " + chosen) + " --out selection.zip";
      more.replaceChildren(rows.length ? el("details", null, el("summary", null, "Save these pictures"),
        el("p", null, "As a folder or a zip, with a contact sheet and a table:"),
        el("div", { class: "command" }, VITAL.commandLines([line]), VITAL.copier(line, "Copy"))) : "");
    }

    function key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || VITAL.typing(event)) return;
      if (event.key === "+" || event.key === "=") wall.step(1);
      else if (event.key === "-") wall.step(-1);
      else if (event.key === "/") { event.preventDefault(); document.getElementById("search").focus(); }
      else if (/^Arrow(Left|Right)$/.test(event.key) && (event.target === document.body || event.target === main)) {
        event.preventDefault();
        wall.focus(wall.here);
      }
    }
    document.addEventListener("keydown", key);
    changed();
    // Back from a neuron's page, that neuron has the focus.
    function focus() {
      const last = VITAL.last && VITAL.last.place === layer.place ? VITAL.sequence.neurons.indexOf(VITAL.last.neuron) : -1;
      if (last >= 0) wall.focus(last, true);
      else main.focus({ preventScroll: true });
    }
    return { title: VITAL.heading(layer), focus, close: function () {
      document.removeEventListener("keydown", key);
      wall.close();
    } };
  };
})();
