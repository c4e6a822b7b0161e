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

  // A part of a layer that is read when it is needed.
  VITAL.part = function (layer, name) {
    const key = layer.folder + "/" + name;
    return VITAL.need(key, key + ".js");
  };

  VITAL.partKnown = function (layer, name) {
    return known.get(layer.folder + "/" + name);
  };

  // A promise of all these parts of a layer; null where they are there.
  VITAL.parts = function (layer, names) {
    const missing = names.filter((name) => VITAL.partKnown(layer, name) === undefined);
    return missing.length ? Promise.all(missing.map((name) => VITAL.part(layer, name))) : null;
  };

  function bytes(text) {
    const found = atob(text);
    const made = new Uint8Array(found.length);
    for (let i = 0; i < found.length; i += 1) made[i] = found.charCodeAt(i);
    return made;
  }

  // Numbers of a part that is there, as an array of the given type; decoded once.
  VITAL.unpacked = function (layer, name, Type, at) {
    const key = at === undefined ? name : name + "/" + at;
    if (!layer.unpacked.has(key)) {
      const part = VITAL.partKnown(layer, name);
      layer.unpacked.set(key, new Type(bytes(at === undefined ? part : part[at]).buffer));
    }
    return layer.unpacked.get(key);
  };

  // What is read first of a layer. Everything else is in parts, so that this is small whatever the layer's size.
  VITAL.layer = function (folder) {
    return VITAL.need(folder, folder + "/layer.js").then(function (data) {
      if (data.folder) return data;
      data.folder = folder;
      data.unpacked = new Map();
      const bits = data.made === null ? null : bytes(data.made);
      data.has = (neuron) => Number.isInteger(neuron) && neuron >= 0 && neuron < data.count &&
        (!bits || ((bits[neuron >> 3] >> (neuron & 7)) & 1) === 1);
      data.made = Uint32Array.from({ length: data.count }, (_, neuron) => neuron);
      if (bits) data.made = data.made.filter(data.has);
      return data;
    });
  };

  const chunkOf = (neuron) => Math.floor(neuron / VITAL.site().perSheet);
  const ofNeuron = (layer, neuron) => OWN + layer.folder + "/" + chunkOf(neuron) + "/" + neuron;

  // Names and values of neurons stand together as their pictures stand in sheets. A promise of those of some neurons;
  // null where they are there, or the layer has none.
  function together(layer, name, neurons) {
    const chunks = new Set(Array.from(neurons).filter(layer.has).map(chunkOf));
    return VITAL.parts(layer, [...chunks].map((chunk) => name + "-" + chunk));
  }

  VITAL.captions = function (layer, neurons) {
    return layer.names ? together(layer, "captions", neurons) : null;
  };

  VITAL.values = function (layer, neurons) {
    return layer.columns.length ? together(layer, "values", neurons) : null;
  };

  VITAL.nameOf = function (layer, neuron) {
    const names = layer.names && VITAL.partKnown(layer, "captions-" + chunkOf(neuron));
    return (names && names[neuron]) || "";
  };

  VITAL.valueOf = function (layer, neuron, column) {
    const values = VITAL.partKnown(layer, "values-" + chunkOf(neuron));
    return values && values[neuron] ? values[neuron][column] : null;
  };

  VITAL.neuron = function (layer, neuron) {
    const chunk = chunkOf(neuron);
    const key = layer.folder + "/" + chunk;
    return VITAL.need(key, layer.folder + "/neurons-" + chunk + ".js").then(function (data) {
      const found = data[neuron];
      // photographs that several neurons show stand once beside them
      const whole = ([index, score, ...more]) => {
        const [file, key, label, credit] = data.shared[index];
        return [file, key, score, label, credit, ...more];
      };
      return found && { ...found, across: found.across.map(whole), lowest: found.lowest.map(whole) };
    });
  };

  VITAL.image = {
    full: function (layer, neuron) { return ofNeuron(layer, neuron) + ".webp"; },
    facet: function (layer, neuron, number) { return ofNeuron(layer, neuron) + "-facet" + number + ".webp"; },
    mask: function (layer, neuron) { return ofNeuron(layer, neuron) + "-mask.webp"; },
    maps: function (layer, neuron) { return ofNeuron(layer, neuron) + "-maps.png"; },
    photo: function (name) { return OWN + "photos/" + name.slice(0, 2) + "/" + name + ".jpg"; },
    // A tile of a sheet: its file, and where it lies in that, as the percentages that background-position wants.
    tile: function (layer, neuron, size) {
      const site = VITAL.site();
      const tile = neuron % site.perSheet;
      const last = site.across - 1;
      return {
        file: OWN + layer.folder + "/sheet-" + chunkOf(neuron) + "-" + size + ".webp",
        x: ((tile % site.across) / last) * 100,
        y: (Math.floor(tile / site.across) / last) * 100,
        across: site.across,
      };
    },
  };
})();
