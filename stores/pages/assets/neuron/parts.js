// Parts of a neuron's page that the comparison shows too: the picture with its mask, photographs, curves, metrics.
(function () {
  "use strict";
  const { el, svg } = VITAL;
  // Measures that are seen at once, where there are many.
  const FIRST = 4;
  let masks = 0;
  VITAL.masked = false;

  // The picture at full size. CSS masks need CORS, which files have not; an SVG mask does not.
  VITAL.figure = function (layer, neuron, data) {
    const full = VITAL.image.full(layer, neuron), alt = VITAL.alt(layer, neuron);
    const plain = el("img", { class: "picture", src: full, alt, width: layer.side, height: layer.side, decoding: "async" });
    const frame = el("div", { class: "frame" }, plain);
    if (!data || !data.mask) return { frame, toggle: null, turn: () => {} };
    const id = "mask-" + (masks += 1);
    const box = { x: 0, y: 0, width: 100, height: 100, preserveAspectRatio: "none" };
    let veiled = null;
    const toggle = el("button", { type: "button", class: "quiet", "aria-pressed": "false",
      title: "Hide what mattered little to the neuron (M)", on: { click: turn } }, "Mask");
    function shown() {
      if (VITAL.masked && !veiled) {
        veiled = svg("svg", { viewBox: "0 0 100 100", class: "picture veiled", role: "img", "aria-label": alt + ", with its mask" },
          svg("mask", { id, style: { "mask-type": "luminance" } }, svg("image", { ...box, href: VITAL.image.mask(layer, neuron) })),
          svg("image", { ...box, href: full, mask: "url(#" + id + ")" }));
      }
      toggle.setAttribute("aria-pressed", String(VITAL.masked));
      frame.replaceChildren(VITAL.masked ? veiled : plain);
    }
    function turn() {
      VITAL.masked = !VITAL.masked;
      document.dispatchEvent(new CustomEvent("masked"));
    }
    document.addEventListener("masked", function again() {
      if (frame.isConnected) shown();
      else if (!toggle.isConnected) document.removeEventListener("masked", again);
    });
    shown();
    return { frame, toggle, turn };
  };

  // On a neuron's own page the address of all neurons that a photograph excites; null elsewhere.
  function searched(key) {
    const here = /^#\/(\d+\/[^/?]+)\/\d+$/.exec(location.hash);
    // a key that is no Unicode has no address
    return here && !/\p{Surrogate}/u.test(key) ? "#/" + here[1] + "?q=" + encodeURIComponent("image:" + key) : null;
  }

  // A photograph and its key, both links where there is an address; the key's alone is a stop of the tab key.
  VITAL.photo = function (key, ...children) {
    const href = searched(key);
    return el(href ? "a" : "div", { class: "photo", href, tabindex: href ? "-1" : null }, children);
  };

  VITAL.photoKey = function (key) {
    const href = searched(key);
    return el("b", { title: key }, href
      ? el("a", { href, title: "The neurons that this photograph excites most: " + key }, key) : key);
  };

  // Where the neuron is active, dark elsewhere: tile by tile of one grey image, which loads when it is first wanted.
  // `cover(i)` is what lies over photograph i of the neuron; all buttons of `toggle()` turn all of them.
  VITAL.maps = function (layer, neuron, data) {
    if (!data.maps) return { cover: () => null, toggle: () => null };
    const covers = [], toggles = [];
    let image = null, on = false;
    function toggle() {
      const button = el("button", { type: "button", class: "quiet", "aria-pressed": String(on),
        title: "Show where the neuron is active on the photographs", on: { click: turn } }, "Where it is active");
      toggles.push(button);
      return button;
    }
    function drawn() {
      const side = image.naturalHeight;
      for (const [canvas, index] of covers) {
        canvas.width = canvas.height = side;
        canvas.getContext("2d").drawImage(image, index * side, 0, side, side, 0, 0, side, side);
      }
    }
    function turn() {
      on = !on;
      for (const button of toggles) button.setAttribute("aria-pressed", String(on));
      if (!image) {
        image = new Image();
        image.onload = drawn;
        image.src = VITAL.image.maps(layer, neuron);
      }
      for (const [canvas] of covers) canvas.hidden = !on;
    }
    function cover(index) {
      const canvas = el("canvas", { class: "map", "aria-hidden": "true", hidden: true });
      covers.push([canvas, index]);
      return canvas;
    }
    return { cover, toggle };
  };

  VITAL.photos = function (photos, cover = () => null) {
    return el("ul", { class: photos.length % 4 ? "photos" : "photos fours" }, photos.map(function ([file, key, score, label, credit, box, above], i) {
      const patch = box && el("span", { class: "patch", "aria-hidden": "true", style: { top: box[0] * 100 + "%",
        left: box[1] * 100 + "%", height: box[2] * 100 + "%", width: box[3] * 100 + "%" } });
      const image = el("img", { src: VITAL.image.photo(file), loading: "lazy", width: 160, height: 160,
        alt: "Photograph " + key + (label ? ", " + label : "") + (box ? ", its patch outlined" : "") });
      return el("li", null, el("figure", null, VITAL.photo(key, image, cover(i), patch),
        el("figcaption", null, above === undefined ? null : el("span", { class: "above" }, "above " + VITAL.share(above)),
          VITAL.photoKey(key), label && label !== key ? el("span", null, label) : null,
          score === null ? null : el("span", { class: "peak" }, "activation " + VITAL.number(score)),
          credit ? el("span", { class: "credit" }, credit) : null)));
    }));
  };

  // How far the picture can be trusted: a mark for each thing that was looked at, full where it holds, and a sentence.
  VITAL.trust = function (layer, data) {
    const all = layer.lookedAt.length;
    if (!all) return null;
    const [findings, text] = data.trust || [[], "How far this picture can be trusted was not measured yet."];
    const level = findings.filter((holds) => holds === true).length, known = findings.filter((holds) => holds !== null).length;
    const marks = layer.lookedAt.map((thing, i) => el("i", { title: thing,
      class: findings[i] === true ? "holds" : findings[i] === false ? "fails" : "" }));
    const said = known ? "Trust: " + level + " of " + all + " hold. " : "";
    return el("div", { class: "trust" },
      el("p", null, el("span", { class: "marks", "aria-hidden": "true" }, marks), el("span", { class: "unseen" }, said), text),
      known < all && layer.measuring ? el("details", null, el("summary", null, known ? "Measure the rest" : "Measure it"),
        el("div", { class: "command" }, VITAL.commandLines([layer.measuring]), VITAL.copier(layer.measuring, "Copy"))) : null);
  };

  VITAL.curves = function (data) {
    const plots = data.curves.map(VITAL.curvePlot).filter(Boolean);
    if (!plots.length) return null;
    return el("section", null, el("h2", null, "Distributions"),
      el("p", { class: "lead" }, "Sorted activations at each node: what the picture should reach, and what it reached."),
      VITAL.plotKey("target", "picture"), el("div", { class: "curves" }, plots));
  };

  VITAL.measures = function (layer, neuron) {
    // trust has a line of its own
    const pairs = layer.columns.map((column, i) => [column, VITAL.valueOf(layer, neuron, i)])
      .filter(([column, value]) => column.name !== "trust" && value !== null);
    const list = (name, some) => el("dl", { class: name }, some.map(([column, value]) => el("div", { title: column.meaning },
      el("dt", null, VITAL.capital(column.name)),
      el("dd", null, VITAL.number(value) + (column.units ? " " + column.units : "")))));
    if (pairs.length <= FIRST + 2) return list("measures", pairs);
    return [list("measures", pairs.slice(0, FIRST)), el("details", { class: "further" },
      el("summary", null, pairs.length - FIRST + " more measures"), list("facts", pairs.slice(FIRST)))];
  };

  // A strip of channels of an earlier node, as pictures where this atlas has them.
  VITAL.strip = function (folder, node, channels, shares) {
    const atlas = VITAL.site().atlases[Number(folder.split("/")[0])];
    const entry = atlas.layers.find((layer) => layer.name === node);
    const list = el("ul", { class: "strip" });
    const what = VITAL.number;
    function numbered() {
      list.className = "stones";
      list.replaceChildren(...channels.map((channel, i) => el("li", { title: "channel " + channel + " of " + node +
        ", importance " + what(shares[i]) }, el("span", null, String(channel), el("small", null, what(shares[i]))), bar(i))));
    }
    const bar = (i) => el("span", { class: "weight", style: { transform: "scaleX(" + shares[i] / shares[0] + ")" } });
    function drawn(layer) {
      if (!channels.some(layer.has)) return;
      list.className = "strip";
      list.replaceChildren(...channels.map(function (channel, i) {
        const share = el("span", { class: "share", title: "importance" }, what(shares[i]));
        if (!layer.has(channel)) {
          return el("li", null, el("div", { title: "channel " + channel + " of " + node + ": no picture in this atlas" },
            el("span", { class: "tile" }), bar(i), el("span", { class: "name" }, String(channel), share)));
        }
        const tile = el("span", { class: "tile" });
        VITAL.paint(tile, layer, channel, 96 * Math.min(window.devicePixelRatio || 1, 3));
        return el("li", null, el("a", { href: VITAL.link(layer.folder, channel), "aria-label":
          VITAL.alt(layer, channel) + ", importance " + what(shares[i]) },
          tile, bar(i), el("span", { class: "name" }, String(channel), share)));
      }));
    }
    numbered();
    if (entry) {
      VITAL.layer(entry.folder).then((layer) => Promise.resolve(VITAL.captions(layer, channels)).then(() => drawn(layer)))
        .catch(() => {});
    }
    return el("div", { class: "node" }, el("h3", null, node), list);
  };
})();
