// Words and numbers as people read them, and addresses within the page.
(function () {
  "use strict";

  VITAL.number = function (value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (value === 0) return "0";
    if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace("e+", "e");
    const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
    return value.toFixed(digits).replace("-", "−");
  };

  VITAL.count = function (value) {
    return value.toLocaleString("en");
  };

  VITAL.share = function (value) {
    return value >= 0.0995 ? Math.round(value * 100) + " %" : (value * 100).toFixed(1) + " %";
  };

  VITAL.heading = function (layer) {
    return layer.name === "classes" ? "Classes" : layer.name;
  };

  VITAL.isClasses = function (layer) {
    return layer.name === "classes";
  };

  // What a neuron is called: classes by name, channels by number, and the word that was found for one.
  VITAL.neuronName = function (layer, neuron) {
    const name = VITAL.nameOf(layer, neuron);
    if (VITAL.isClasses(layer)) return name || "class " + neuron;
    return (layer.name.includes("~") ? "neuron " : "channel ") + neuron + (name ? ", " + name : "");
  };

  // The same under a picture of the wall, where there is little room.
  VITAL.caption = function (layer, neuron) {
    const name = VITAL.nameOf(layer, neuron);
    if (VITAL.isClasses(layer)) return name ? name : String(neuron);
    return neuron + (name ? " " + name : "");
  };

  VITAL.alt = function (layer, neuron) {
    const name = VITAL.neuronName(layer, neuron);
    return "Picture of " + name + (VITAL.isClasses(layer) && layer.names ? ", class " + neuron : " of layer " + layer.name);
  };

  // Addresses: #/FOLDER for a layer, #/FOLDER/NEURON for a neuron; FOLDER, where a layer's files lie, is ATLAS/LAYER.
  VITAL.link = function (folder, neuron) {
    const parts = folder.split("/").map(encodeURIComponent);
    if (neuron !== undefined && neuron !== null) parts.push(String(neuron));
    return "#/" + parts.join("/");
  };

  VITAL.compareLink = function (left, right, neuron) {
    const parts = ["compare", ...left.split("/"), ...right.split("/")].map(encodeURIComponent);
    if (neuron !== undefined && neuron !== null) parts.push(String(neuron));
    return "#/" + parts.join("/");
  };

  // Numbers as the command takes them: 3, 4, 5, 9 is 3:6,9.
  VITAL.ranges = function (neurons) {
    const sorted = [...neurons].sort((a, b) => a - b);
    const parts = [];
    for (let i = 0; i < sorted.length;) {
      let j = i;
      while (j + 1 < sorted.length && sorted[j + 1] === sorted[j] + 1) j += 1;
      parts.push(j > i ? sorted[i] + ":" + (sorted[j] + 1) : String(sorted[i]));
      i = j + 1;
    }
    return parts.join(",");
  };

  // Where these pages are, as the command is told it: a folder, or an address.
  VITAL.folder = function () {
    const folder = location.href.replace(/[#?].*$/, "").replace(/\/[^/]*$/, "");
    return location.protocol === "file:" ? decodeURIComponent(folder.replace("file://", "")) : folder;
  };

  VITAL.quoted = function (text) {
    return /^[\w@%+=:,./-]+$/.test(text) ? text : "'" + text.replaceAll("'", "'\"'\"'") + "'";
  };
})();
