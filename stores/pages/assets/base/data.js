// Data comes as classic scripts that call VITAL.put: pages opened from disk may neither fetch nor import.
(function () {
  "use strict";
  const OWN = "vital-site/";
  const known = new Map();
  const waiting = new Map();
  const VITAL = (window.VITAL = {});

  VITAL.put = function (key, value) {
    known.set(key, value);
  };

  VITAL.known = function (key) {
    return known.get(key);
  };

  // A promise of the data under `key`, which the script at `path` (below our folder) puts.
  VITAL.need = function (key, path) {
    if (known.has(key)) return Promise.resolve(known.get(key));
    if (!waiting.has(key)) {
      waiting.set(key, new Promise(function (resolve, reject) {
        const script = document.createElement("script");
        script.src = OWN + path;
        script.onload = function () {
          script.remove();
          waiting.delete(key);
          if (known.has(key)) resolve(known.get(key));
          else reject(new Error(path + " does not hold what it should: write the pages again"));
        };
        script.onerror = function () {
          script.remove();
          waiting.delete(key);
          reject(new Error(path + " is missing or unreadable: write the pages again"));
        };
        document.head.append(script);
      }));
    }
    return waiting.get(key);
  };

  VITAL.site = function () {
    return known.get("site");
  };

  // Everything about a layer: its entry in the site, its data, and where a neuron stands among those with pictures.
  VITAL.layer = function (place) {
    return VITAL.need(place, place + "/layer.js").then(function (data) {
      if (!data.row) {
        data.place = place;
        data.row = new Map(data.made.map(function (neuron, row) { return [neuron, row]; }));
      }
      return data;
    });
  };

  VITAL.neuron = function (layer, neuron) {
    const chunk = Math.floor(neuron / VITAL.site().perSheet);
    const key = layer.place + "/" + chunk;
    return VITAL.need(key, layer.place + "/neurons-" + chunk + ".js").then(function (data) {
      const found = data[neuron];
      // photographs that several neurons show stand once beside them
      const whole = ([place, score, ...more]) => {
        const [file, key, label, credit] = data.shared[place];
        return [file, key, score, label, credit, ...more];
      };
      return found && { ...found, across: found.across.map(whole), lowest: found.lowest.map(whole) };
    });
  };

  VITAL.image = {
    full: function (layer, neuron) { return OWN + layer.place + "/" + neuron + ".webp"; },
    facet: function (layer, neuron, number) { return OWN + layer.place + "/" + neuron + "-facet" + number + ".webp"; },
    mask: function (layer, neuron) { return OWN + layer.place + "/" + neuron + "-mask.webp"; },
    maps: function (layer, neuron) { return OWN + layer.place + "/" + neuron + "-maps.png"; },
    photo: function (name) { return OWN + "photos/" + name.slice(0, 2) + "/" + name + ".jpg"; },
    // A tile of a sheet: its file, and its place as the percentages that background-position wants.
    tile: function (layer, neuron, size) {
      const site = VITAL.site();
      const place = neuron % site.perSheet;
      const last = site.across - 1;
      return {
        file: OWN + layer.place + "/sheet-" + Math.floor(neuron / site.perSheet) + "-" + size + ".webp",
        x: ((place % site.across) / last) * 100,
        y: (Math.floor(place / site.across) / last) * 100,
        across: site.across,
      };
    },
  };
})();
