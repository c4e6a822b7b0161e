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
    const made = layer.made.length, all = layer.count;
    if (made === all) return VITAL.count(all) + " " + what;
    const reasons = layer.missing.map(([code, count]) => VITAL.count(count) + ": " + (layer.meanings[code] || "unknown"));
    return VITAL.count(made) + " of " + VITAL.count(all) + " " + what + " have pictures — " + reasons.join("; ");
  }

  // The order last seen, for the neighbours of a neuron's page.
  VITAL.sequence = { folder: "", neurons: [], back: "" };

  // Sheets of a layer that all of its pictures may be taken from, in any order.
  const FEW_SHEETS = 64;
  // Neurons of the first view, whose names are waited for.
  const FIRST = 64;
  // Of a command line's argument.
  const LONGEST = 1e5;

  // A sentence about what was found, where one is needed.
  function said(layer, neurons, text, found) {
    if (neurons.length && found.instead.length) {
      return found.instead.map(([word, start]) => "Nothing has “" + word + "”" + (start ? "; these have “" + start + "”." : "."))
        .join(" ");
    }
    if (neurons.length || found.like.length) return "";
    if (VITAL.byPhotograph(text)) return "No photograph that is shown here has a name that begins so.";
    if (/^[\d\s,:–-]+$/.test(text)) return "No neuron with a picture has such a number.";
    return layer.made.length ? "Nothing fits. Change the search or the range." : "No pictures yet.";
  }

  // Whether neighbours on the wall mostly lie on different sheets, of many.
  function isScattered(layer, neurons) {
    const { perSheet } = VITAL.site();
    if (layer.count <= FEW_SHEETS * perSheet) return false;
    let turns = 0;
    for (let i = 1; i < neurons.length; i += 1) {
      if (Math.floor(neurons[i] / perSheet) !== Math.floor(neurons[i - 1] / perSheet)) turns += 1;
    }
    return turns > neurons.length / 4;
  }

  VITAL.overview = function (layer, query, main) {
    const state = stateOf(query);
    if (!VITAL.orders(layer).some(([key]) => key === state.order)) state.order = "index";
    let neurons = [], alone = false, turn = 0;
    const nothing = el("p", { class: "empty", hidden: true });
    const wall = new VITAL.Wall({
      size: Number(state.size) || usualSize(),
      cell: function (index) {
        const neuron = neurons[index];
        return { href: VITAL.link(layer.folder, neuron), label: VITAL.alt(layer, neuron),
          caption: VITAL.caption(layer, neuron), pending: VITAL.captions(layer, [neuron]),
          paint: (node, pixels) => VITAL.paint(node, layer, neuron, pixels, alone) };
      },
      zoomed: function (size) { state.size = String(Math.round(size)); remember(); },
      // only similarity has another order on a wall of another width
      recolumned: (columns) => { if (state.order === "similarity" && !VITAL.awaited(layer, state)) arrange(columns); },
    });
    const { bar, count } = VITAL.bar(layer, state, wall, changed);
    const site = VITAL.site();
    const more = el("div", { class: "under" }), photograph = el("div", { class: "chosen", hidden: true });
    main.append(el("div", { class: "title" }, el("h1", null, VITAL.heading(layer)), el("p", { class: "quiet" }, counted(layer))),
      bar, photograph, wall.host, nothing, more);

    function arrange(columns) {
      neurons = VITAL.arranged(layer, state, columns || wall.columns || 8);
      alone = isScattered(layer, neurons);
      VITAL.sequence = { folder: layer.folder, neurons, back: "" };
      remember();
    }

    function remember() {
      VITAL.sequence.back = VITAL.link(layer.folder) + queryOf(state);
      VITAL.settle(VITAL.sequence.back);
    }

    // Waits for the parts that the new state needs; a later change takes its place. The wall is busy meanwhile, and
    // until the names of its first view are there.
    function changed() {
      const mine = (turn += 1);
      const current = () => mine === turn && wall.host.isConnected;
      const busy = (awaited) => { wall.host.setAttribute("aria-busy", String(Boolean(awaited))); return awaited; };
      const failed = (error) => { if (current()) { busy(false); nothing.textContent = error.message; nothing.hidden = false; } };
      function laid() {
        if (!current()) return;
        arrange();
        show();
        const named = busy(VITAL.captions(layer, neurons.subarray(0, FIRST)));
        if (named) named.then(() => { if (current()) busy(false); }, failed);
      }
      const awaited = busy(VITAL.awaited(layer, state));
      if (awaited) awaited.then(laid, failed);
      else laid();
    }

    function show() {
      wall.show(neurons.length);
      count.textContent = neurons.length === layer.made.length ? ""
        : VITAL.count(neurons.length) + " of " + VITAL.count(layer.made.length);
      VITAL.say(neurons.length + " pictures");
      const found = VITAL.found(layer, state.q);
      nothing.textContent = said(layer, neurons, state.q, found);
      nothing.hidden = !nothing.textContent;
      photograph.hidden = !found.photograph && !found.like.length;
      photograph.replaceChildren(...(found.photograph ? chosen(found.photograph) : found.like.length ? [choice(found.like)] : []));
      selection();
    }

    const thumbnail = ({ file, key }, side) => el("img", { src: VITAL.image.photo(file), width: side, height: side, alt: "Photograph " + key });

    function chosen(one) {
      return [thumbnail(one, 96), el("p", null, "Neurons that this photograph excites, the most excited first.", el("br"),
        [one.key, one.label].filter(Boolean).join(", "))];
    }

    // Photographs of which one may be meant, each with its address.
    function choice(like) {
      return el("div", null, el("p", null, "Photographs whose names begin so. Press one for the neurons that it excites."),
        el("ul", null, like.map((one) => el("li", null, el("a", { title: one.key,
          href: VITAL.link(layer.folder) + "?q=" + encodeURIComponent("image:" + one.key) }, thumbnail(one, 72), one.key)))));
    }

    // The command is written when it is asked for: of thousands of neurons it is long.
    function selection() {
      const all = neurons.length === layer.made.length;
      const folded = el("details", null, el("summary", null, "Save these pictures"));
      folded.addEventListener("toggle", function () {
        const atlas = site.atlases[Number(layer.folder.split("/")[0])];
        const chosen = all ? "" : " --neurons " + VITAL.ranges(neurons);
        const line = "vital export " + VITAL.quoted(atlas.url) + " --layer " + VITAL.quoted(layer.name) + chosen +
          " --out selection.zip";
        folded.append(...(chosen.length > LONGEST ? [el("p", null, "These are too many for one command: narrow the search.")]
          : [el("p", null, "As a folder or a zip, with a contact sheet and a table:"),
            el("div", { class: "command" }, VITAL.commandLines([line]), VITAL.copier(line, "Copy"))]));
      }, { once: true });
      more.replaceChildren(neurons.length ? folded : "", asking());
    }

    // These pages have no network, so a photograph that they do not show is asked about elsewhere.
    function asking() {
      const folded = el("details", { open: !neurons.length && photograph.hidden && VITAL.byPhotograph(state.q) },
        el("summary", null, "Ask by a photograph"));
      const atlas = site.atlases[Number(layer.folder.split("/")[0])];
      const line = "vital look " + VITAL.quoted(atlas.url) + " PHOTO.jpg --layer " + VITAL.quoted(layer.name)
        + " --out look --pages " + VITAL.quoted(VITAL.folder());
      folded.append(layer.indexes.photographs ? el("p", null, "One of the data set: press it on a neuron's page, or type image: "
        + "and the beginning of its file's name above. The neurons that it excites follow, the most excited first.") : "",
        el("p", null, "One of your own goes through the network, which these pages have not:"),
        el("div", { class: "command" }, VITAL.commandLines([line]), VITAL.copier(line, "Copy")));
      return folded;
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
      const last = VITAL.last && VITAL.last.folder === layer.folder ? neurons.indexOf(VITAL.last.neuron) : -1;
      if (last >= 0) wall.focus(last, true);
      else main.focus({ preventScroll: true });
    }
    return { title: VITAL.heading(layer), focus, close: function () {
      document.removeEventListener("keydown", key);
      wall.close();
    } };
  };
})();
