// Two layers side by side, neuron by neuron: of two atlases, or two layers of one.
(function () {
  "use strict";
  const { el } = VITAL;

  // Every layer of the site, with the atlas's name where there are several.
  VITAL.everyLayer = function () {
    return VITAL.site().atlases.flatMap((atlas) => atlas.layers.map((layer) => ({ folder: layer.folder, name: layer.name,
      atlas: atlas.title, label: VITAL.site().atlases.length > 1 ? atlas.title + " · " + layer.name : layer.name })));
  };

  // The same layer of the other atlases.
  VITAL.comparable = function (folder) {
    const own = VITAL.everyLayer().find((one) => one.folder === folder);
    return VITAL.everyLayer().filter((one) => own && one.folder !== folder && one.name === own.name)
      .map((one) => ({ ...one, label: one.atlas }));
  };

  // What a comparison begins with: a layer that two atlases share, else the first of each.
  VITAL.usualPair = function () {
    const layers = VITAL.everyLayer();
    for (const one of layers) {
      const other = VITAL.comparable(one.folder).find((found) => found.folder.split("/")[0] !== one.folder.split("/")[0]);
      if (other) return [one.folder, other.folder];
    }
    const firsts = VITAL.site().atlases.filter((atlas) => atlas.layers.length).map((atlas) => atlas.layers[0].folder);
    return firsts.length > 1 ? firsts.slice(0, 2) : null;
  };

  function chooser(layers, chosen, label, changed) {
    const box = el("select", { "aria-label": label, on: { change: () => changed(box.value) } },
      layers.map((one) => el("option", { value: one.folder, selected: one.folder === chosen }, one.label)));
    return box;
  }

  function head(left, right, neuron) {
    const layers = VITAL.everyLayer();
    const go = (a, b) => { location.hash = VITAL.compareLink(a, b, neuron); };
    return el("div", { class: "versus" }, chooser(layers, left.folder, "Left", (value) => go(value, right.folder)),
      el("button", { type: "button", class: "quiet icon", "aria-label": "Swap sides", title: "Swap sides",
        on: { click: () => go(right.folder, left.folder) } }, "⇄"),
      chooser(layers, right.folder, "Right", (value) => go(left.folder, value)));
  }

  function half(layer, neuron, pixels) {
    const node = el("span", { class: "half" });
    if (layer.has(neuron)) VITAL.paint(node, layer, neuron, pixels);
    else node.append(el("span", { class: "none" }, "no picture"));
    return node;
  }

  VITAL.compare = function (left, right, main) {
    const common = left.made.filter(right.has);
    const either = [...new Set([...left.made, ...right.made])].sort((a, b) => a - b);
    const neurons = common.length ? common : either;
    const wall = new VITAL.Wall({ size: window.innerWidth < 600 ? 150 : 160, ratio: 2, cell: function (index) {
      const neuron = neurons[index];
      const named = left.has(neuron) ? left : right;
      const name = VITAL.neuronName(named, neuron);
      return { pending: VITAL.captions(named, [neuron]),
         href: VITAL.compareLink(left.folder, right.folder, neuron), label: "Compare " + name + " of both",
        caption: named.names ? name : String(neuron), paint: function (node, pixels) {
          node.classList.add("pair");
          node.append(half(left, neuron, pixels), half(right, neuron, pixels));
        } };
    } });
    const note = common.length ? common.length + " neurons have pictures on both sides"
      : "no neuron has pictures on both sides; those of either side are shown";
    main.append(el("div", { class: "title" }, el("h1", null, "Compare"), el("p", { class: "quiet" }, note)),
      el("div", { class: "bar" }, head(left, right), el("div", { class: "field size" },
        el("button", { type: "button", class: "quiet icon", "aria-label": "Smaller pictures", on: { click: () => wall.step(-1) } }, "−"),
        el("button", { type: "button", class: "quiet icon", "aria-label": "Larger pictures", on: { click: () => wall.step(1) } }, "+"))),
      wall.host);
    wall.show(neurons.length);
    return { title: "Compare", close: () => wall.close() };
  };

  function table(left, right, neuron) {
    const names = [...new Set([...left.columns, ...right.columns].map((column) => column.name))];
    const value = function (layer, name) {
      const column = layer.columns.findIndex((one) => one.name === name);
      return column >= 0 && layer.has(neuron) ? VITAL.valueOf(layer, neuron, column) : null;
    };
    return el("table", { class: "measured" },
      el("thead", null, el("tr", null, el("td"), el("th", { scope: "col" }, "Left"), el("th", { scope: "col" }, "Right"))),
      el("tbody", null, names.map((name) => el("tr", null, el("th", { scope: "row" }, VITAL.capital(name)),
        el("td", null, VITAL.number(value(left, name))), el("td", null, VITAL.number(value(right, name)))))));
  }

  function side(layer, neuron, data) {
    if (!data) return el("div", { class: "side" }, el("div", { class: "frame" }, el("p", { class: "none" }, "No picture here.")));
    const { frame, toggle, turn } = VITAL.figure(layer, neuron, data);
    const node = el("div", { class: "side" }, frame, el("div", { class: "actions" }, toggle,
      el("a", { class: "quiet", href: VITAL.link(layer.folder, neuron) }, "Its own page")), VITAL.trust(layer, data),
      data.photos.length ? VITAL.photos(data.photos.slice(0, 6)) : null, VITAL.curves(data));
    node.turn = turn;
    return node;
  }

  VITAL.comparePair = function (left, right, neuron, data, main) {
    const named = left.has(neuron) ? left : right;
    const all = left.made.filter(right.has);
    const at = all.indexOf(neuron);
    const step = (index, text, label) => (all[index] === undefined || at < 0
      ? el("span", { class: "quiet icon off", "aria-hidden": "true" }, text)
      : el("a", { class: "quiet icon", "aria-label": label, href: VITAL.compareLink(left.folder, right.folder, all[index]) }, text));
    const sides = [side(left, neuron, data[0]), side(right, neuron, data[1])];
    main.append(el("article", { class: "neuron both" },
      el("nav", { class: "path", "aria-label": "Breadcrumb" }, el("a", { href: VITAL.compareLink(left.folder, right.folder) }, "Compare"),
        el("span", { class: "steps" }, step(at - 1, "←", "Previous"), step(at + 1, "→", "Next"))),
      el("h1", null, VITAL.neuronName(named, neuron)), head(left, right, neuron), el("div", { class: "sides" }, sides),
      el("section", null, el("h2", null, "Measured"), table(left, right, neuron))));
    function key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || VITAL.typing(event)) return;
      if (event.key === "ArrowLeft" && at > 0) location.hash = VITAL.compareLink(left.folder, right.folder, all[at - 1]);
      else if (event.key === "ArrowRight" && at >= 0 && all[at + 1] !== undefined) {
        location.hash = VITAL.compareLink(left.folder, right.folder, all[at + 1]);
      } else if (event.key === "Escape") location.hash = VITAL.compareLink(left.folder, right.folder);
      else if (event.key.toLowerCase() === "m") (sides[0].turn || sides[1].turn || (() => {}))();
    }
    document.addEventListener("keydown", key);
    return { title: "Compare " + VITAL.neuronName(named, neuron), close: () => document.removeEventListener("keydown", key) };
  };
})();
