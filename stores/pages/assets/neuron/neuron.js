// The page of one neuron.
(function () {
  "use strict";
  const { el } = VITAL;

  // Those before and after it, in the order last seen where it is part of that.
  VITAL.neighbours = function (layer, neuron) {
    const seen = VITAL.sequence.folder === layer.folder ? VITAL.sequence.neurons.indexOf(neuron) : -1;
    const order = seen < 0 ? layer.made : VITAL.sequence.neurons;
    const at = seen < 0 ? layer.made.indexOf(neuron) : seen;
    return at < 0 ? [undefined, undefined] : [order[at - 1], order[at + 1]];
  };

  function arrow(layer, neuron, text, label, rel) {
    if (neuron === undefined) return el("span", { class: "quiet icon off", "aria-hidden": "true" }, text);
    return el("a", { class: "quiet icon", href: VITAL.link(layer.folder, neuron), rel,
      "aria-label": label + ": " + VITAL.neuronName(layer, neuron) }, text);
  }

  function missing(layer, neuron) {
    const why = neuron >= layer.count
      ? "Layer " + layer.name + " has neurons 0 to " + (layer.count - 1) + "."
      : "No picture: " + (layer.meanings[VITAL.partKnown(layer, "status")[neuron]] || "not made yet") + ".";
    return el("p", { class: "empty" }, why);
  }

  // Chromium's own way to download; the browser's context menu works everywhere.
  function save(layer, neuron) {
    const name = layer.name.replace(/[^\w.-]+/g, "-") + "-" + neuron + ".webp";
    return el("a", { class: "quiet", href: VITAL.image.full(layer, neuron), download: name }, "Save");
  }

  function sources(layer, data) {
    if (!data.sources.length) return null;
    return el("section", { class: "sources" }, el("h2", null, "Where it comes from"),
      el("p", { class: "lead" }, "Relevant information flow: the channels of earlier nodes that matter most to this neuron."),
      data.sources.map(([node, channels, shares]) => VITAL.strip(layer.folder, node, channels, shares)));
  }

  // What references are, and what the picture has to do with them.
  function matched(layer, outlined) {
    const best = VITAL.isClasses(layer) ? "Photographs of the class, by lot" : "The photographs that excite it most";
    const where = !outlined ? "." : layer.whole ? "; where it is most active is outlined." : "; the patch that counts is outlined.";
    if (layer.whole && layer.matched === "references") return "The photographs whose activations the picture matches, whole" + where;
    if (layer.matched !== "trend") return best + where;
    return best + where + " The picture matches what goes with its activation in these and in weaker ones.";
  }

  // Its references, photographs across the whole data set, and those of its least activation.
  function seen(layer, data, { cover, toggle }) {
    const outlined = data.photos.some((photo) => photo[5]);
    const parts = [
      ["References", data.photos, matched(layer, outlined)],
      ["Across the data set", data.across, "From strong to weak: above is the share of all images that excite it less."],
      ["Lowest", data.lowest, "The photographs on which it is least active; where it is least so is outlined, and bright on the map."],
    ];
    let before = 0;
    return parts.map(function ([title, photos, lead], part) {
      const first = before;
      before += photos.length;
      if (!photos.length) return null;
      const button = part === 0 || first === 0 ? toggle() : null;
      return el("section", { class: part ? "seen small" : "seen" }, el("div", { class: "headed" }, el("h2", null, title), button),
        el("p", { class: "lead" }, lead), VITAL.photos(photos, (i) => cover(first + i)));
    });
  }

  // What photographs of a facet are called that share a label, the most common first.
  function labelled(photos) {
    const counts = new Map();
    for (const [, , , label] of photos) if (label) counts.set(label, (counts.get(label) || 0) + 1);
    const shared = [...counts].filter(([, count]) => count > 1).sort((a, b) => b[1] - a[1]).slice(0, 3);
    if (!shared.length) return null;
    return el("p", { class: "lead" }, "Of " + photos.length + " photographs: "
      + shared.map(([label, count]) => label + " (" + count + ")").join(", ") + ".");
  }

  // The pictures of its further facets, each with photographs of its own, and how far each by itself can be trusted.
  function facets(layer, neuron, data, { cover, toggle }) {
    if (!data.facets) return null;
    const trust = (line) => line && VITAL.trust(layer, { trust: line });
    // their maps follow those of the neuron's other photographs
    let before = data.photos.length + data.across.length + data.lowest.length;
    const shown = function (photos) {
      const first = before;
      before += photos.length;
      return photos.length ? VITAL.photos(photos, (i) => cover(first + i)) : null;
    };
    return el("section", { class: "facets" },
      el("div", { class: "headed" }, el("h2", null, "It has " + (data.facets.length + 1) + " facets"), toggle()),
      el("p", { class: "lead" }, "Its references fall into groups, and each has a picture. Facet 0, of " + data.references
        + " references, is above" + (data.first ? "; of its picture alone:" : ".")),
      trust(data.first), labelled(data.photos),
      data.facets.map(([references, photos, line], index) => el("div", { class: "facet" },
        el("div", { class: "frame" }, el("img", { class: "picture", src: VITAL.image.facet(layer, neuron, index + 1),
          alt: VITAL.alt(layer, neuron) + ", facet " + (index + 1), width: layer.side, height: layer.side, loading: "lazy" })),
        el("div", null, el("h3", null, "Facet " + (index + 1) + ", of " + references + " references"),
          trust(line), labelled(photos), shown(photos)))));
  }

  function recipe(layer, neuron, data) {
    const lines = layer.commands.map((line) => line.replaceAll("{neuron}", String(neuron)));
    return el("section", { class: "recipe" }, el("h2", null, "Make it again"),
      el("div", { class: "command" }, VITAL.commandLines(lines), VITAL.copier(lines.join("\n"), "Copy")),
      el("p", { class: "lead" }, "A run makes the whole block of 32 neurons that this one is in."),
      el("details", null, el("summary", null, "Fingerprints and settings"),
        VITAL.facts([["seed", data.seed], ...layer.facts.filter(([name]) => name !== "seed")])));
  }

  VITAL.page = function (layer, neuron, data, main) {
    const name = VITAL.neuronName(layer, neuron);
    VITAL.last = { folder: layer.folder, neuron };
    const [before, after] = VITAL.neighbours(layer, neuron);
    const back = VITAL.sequence.folder === layer.folder && VITAL.sequence.back || VITAL.link(layer.folder);
    const path = el("nav", { class: "path", "aria-label": "Breadcrumb" }, el("a", { href: back }, VITAL.heading(layer)),
      el("span", { class: "steps" }, arrow(layer, before, "←", "Previous", "prev"), arrow(layer, after, "→", "Next", "next")));
    const heading = el("h1", null, name, VITAL.isClasses(layer) && layer.names ? el("small", null, String(neuron)) : null);
    if (!data) {
      main.append(path, heading, missing(layer, neuron));
      return { title: name, close: () => {} };
    }
    const { frame, toggle, turn } = VITAL.figure(layer, neuron, data);
    const others = VITAL.comparable(layer.folder);
    const actions = el("div", { class: "actions" }, toggle, save(layer, neuron),
      others.map((other) => el("a", { class: "quiet", href: VITAL.compareLink(layer.folder, other.folder, neuron) },
        "Compare with " + other.label)));
    const loss = VITAL.lossPlot(data.loss, layer.steps), maps = VITAL.maps(layer, neuron, data);
    main.append(el("article", { class: "neuron" }, path,
      el("div", { class: "show" }, el("div", { class: "left" }, frame,
        layer.shown ? el("p", { class: "lead shown" }, "Shown: " + layer.shown + ".") : null, actions),
        el("div", { class: "right" }, heading, VITAL.trust(layer, data), VITAL.measures(layer, neuron),
          VITAL.naming(layer, data), seen(layer, data, maps))),
      facets(layer, neuron, data, maps), sources(layer, data), VITAL.curves(data),
      loss ? el("section", { class: "loss" }, el("h2", null, "Loss"), el("div", { class: "curves" }, loss)) : null,
      recipe(layer, neuron, data)));
    function key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || VITAL.typing(event)) return;
      if (event.key === "ArrowLeft" && before !== undefined) location.hash = VITAL.link(layer.folder, before);
      else if (event.key === "ArrowRight" && after !== undefined) location.hash = VITAL.link(layer.folder, after);
      else if (event.key === "Escape") location.hash = back;
      else if (event.key === "m" || event.key === "M") turn();
    }
    document.addEventListener("keydown", key);
    return { title: name + " · " + VITAL.heading(layer), close: () => document.removeEventListener("keydown", key) };
  };
})();
