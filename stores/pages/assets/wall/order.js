// Which neurons of a layer are shown, and in which order. Rows are positions among the neurons with pictures.
(function () {
  "use strict";

  VITAL.orders = function (layer) {
    const found = [["index", "Index"]];
    if (layer.names) found.push(["name", "Name"]);
    if (layer.places) found.push(["similarity", "Similarity"]);
    layer.columns.forEach((column, i) => {
      if (column.values.some((value) => value !== null)) found.push(["column" + i, VITAL.capital(column.name)]);
    });
    return found;
  };

  VITAL.capital = function (text) {
    return text.charAt(0).toUpperCase() + text.slice(1).replaceAll("_", " ");
  };

  // Search: numbers and ranges name neurons (7, 12:20), anything else is looked for in names; commas join.
  function searched(layer, text) {
    const parts = text.toLowerCase().split(",").map((part) => part.trim()).filter(Boolean);
    if (!parts.length) return () => true;
    const tests = parts.map(function (part) {
      const span = /^(\d+)\s*(?::|-|–)\s*(\d+)$/.exec(part);
      if (span) {
        const last = part.includes(":") ? Number(span[2]) - 1 : Number(span[2]);
        return (neuron) => neuron >= Number(span[1]) && neuron <= last;
      }
      const words = part.split(/\s+/);
      return function (neuron) {
        if (/^\d+$/.test(part) && neuron === Number(part)) return true;
        const name = VITAL.neuronName(layer, neuron).toLowerCase();
        // a channel's number stands in its name, too
        if (!(layer.names && VITAL.isClasses(layer)) && /^\d+$/.test(part)) return false;
        return words.every((word) => name.includes(word));
      };
    });
    return (neuron) => tests.some((test) => test(neuron));
  }

  // image:KEY asks for the neurons that a photograph excites: where they stand, or null for another search.
  function photographed(layer, text) {
    const asked = /^\s*image:\s*(.*?)\s*$/.exec(text);
    if (!asked) return null;
    let total = 0;
    for (let i = 0; i < asked[1].length; i += 1) total = (total * 31 + asked[1].charCodeAt(i)) % 1000003;
    return { key: asked[1], file: layer.photographs ? layer.place + "/photographs-" + (total % layer.photographs) : "" };
  }

  // A promise of what a search needs beside the layer's own data; null where it is there, or nothing is needed.
  VITAL.awaited = function (layer, text) {
    const asked = photographed(layer, text);
    return asked && asked.file && !VITAL.known(asked.file) ? VITAL.need(asked.file, asked.file + ".js") : null;
  };

  function inRange(layer, state) {
    const column = layer.columns[Number(state.metric)];
    const low = state.min === "" ? -Infinity : Number(state.min), high = state.max === "" ? Infinity : Number(state.max);
    if (state.metric === "" || !column || (low === -Infinity && high === Infinity)) return () => true;
    return (row) => column.values[row] !== null && column.values[row] >= low && column.values[row] <= high;
  }

  // Rows of the neurons that pass search and range, in the state's order; `columns` of the wall matters to similarity.
  VITAL.arranged = function (layer, state, columns) {
    const fits = inRange(layer, state), seen = photographed(layer, state.q);
    let rows;
    if (seen) {
      // in the order of the photograph's rank; it has its own entry only, not what every object has
      const found = VITAL.known(seen.file) || {};
      const neurons = Object.hasOwn(found, seen.key) ? found[seen.key] : [];
      rows = neurons.map((neuron) => layer.row.get(neuron)).filter((row) => row !== undefined && fits(row));
    } else {
      const asked = searched(layer, state.q);
      rows = layer.made.map((neuron, row) => row).filter((row) => asked(layer.made[row]) && fits(row));
    }
    if (state.order === "name" && layer.names) {
      rows.sort((a, b) => layer.names[a].localeCompare(layer.names[b]) || a - b);
    } else if (state.order === "similarity" && layer.places) {
      return inGrid(layer, rows, columns);
    } else if (state.order.startsWith("column")) {
      const column = layer.columns[Number(state.order.slice(6))];
      if (column) {
        const value = (row) => (column.values[row] === null ? (state.down ? -Infinity : Infinity) : column.values[row]);
        const sign = state.down ? -1 : 1;
        rows.sort((a, b) => sign * (value(a) - value(b)) || a - b);
        return rows;
      }
    }
    return state.down ? rows.reverse() : rows;
  };

  // Two coordinates onto a wall of so many columns: rows by the second, within a row by the first.
  function inGrid(layer, rows, columns) {
    const [x, y] = layer.places;
    const sorted = rows.slice().sort((a, b) => y[a] - y[b] || a - b);
    const made = [];
    for (let i = 0; i < sorted.length; i += columns) {
      made.push(...sorted.slice(i, i + columns).sort((a, b) => x[a] - x[b] || a - b));
    }
    return made;
  }
})();
