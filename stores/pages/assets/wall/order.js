// Which neurons of a layer are shown, and in which order.
(function () {
  "use strict";

  VITAL.orders = function (layer) {
    const found = [["index", "Index"]];
    if (layer.names) found.push(["name", "Name"]);
    if (layer.coordinates) found.push(["similarity", "Similarity"]);
    layer.columns.forEach((column, i) => {
      if (column.ends) found.push(["column" + i, VITAL.capital(column.name)]);
    });
    return found;
  };

  VITAL.capital = function (text) {
    return text.charAt(0).toUpperCase() + text.slice(1).replaceAll("_", " ");
  };

  const columnOf = (order) => (order.startsWith("column") ? Number(order.slice(6)) : -1);

  function isRange(layer, state) {
    return state.metric !== "" && layer.columns[Number(state.metric)] && (state.min !== "" || state.max !== "");
  }

  // A promise of what a search, an order and a range need beside what was read first; null where it is there.
  VITAL.awaited = function (layer, state) {
    const names = VITAL.searchParts(layer, state.q);
    if (state.order === "name" && layer.names) names.push("name-order");
    if (state.order === "similarity" && layer.coordinates) names.push("coordinates");
    if (layer.columns[columnOf(state.order)]) names.push("column-" + columnOf(state.order));
    if (isRange(layer, state)) names.push("column-" + Number(state.metric));
    return VITAL.parts(layer, names);
  };

  const valuesOf = (layer, column) => VITAL.unpacked(layer, "column-" + column, Float32Array);

  function inRange(layer, state) {
    if (!isRange(layer, state)) return null;
    const values = valuesOf(layer, Number(state.metric));
    // bounds are rounded as the values are
    const low = state.min === "" ? -Infinity : Math.fround(Number(state.min));
    const high = state.max === "" ? Infinity : Math.fround(Number(state.max));
    return (neuron) => values[neuron] >= low && values[neuron] <= high;
  }

  // Neurons that pass search and range, in the state's order; `columns` of the wall matters to similarity.
  VITAL.arranged = function (layer, state, columns) {
    const fits = inRange(layer, state), { neurons: all, ranked } = VITAL.found(layer, state.q);
    const neurons = Uint32Array.from(fits ? all.filter(fits) : all);
    const column = columnOf(state.order);
    if (layer.columns[column]) return byValue(neurons, valuesOf(layer, column), state.down);
    if (state.order === "similarity" && layer.coordinates) return inGrid(layer, neurons.sort(), columns);
    if (state.order === "name" && layer.names) {
      const wanted = new Set(neurons);
      neurons.set(VITAL.unpacked(layer, "name-order", Uint32Array).filter((neuron) => wanted.has(neuron)));
    } else if (!ranked) neurons.sort();
    return state.down ? neurons.reverse() : neurons;
  };

  // What is not known comes last, whichever way.
  function byValue(neurons, values, down) {
    const sign = down ? -1 : 1;
    const known = neurons.filter((neuron) => !Number.isNaN(values[neuron]));
    known.sort((a, b) => sign * (values[a] - values[b]) || a - b);
    neurons.set(neurons.filter((neuron) => Number.isNaN(values[neuron])).sort(), known.length);
    neurons.set(known);
    return neurons;
  }

  // Two coordinates onto a wall of so many columns: rows by the second, within a row by the first.
  function inGrid(layer, neurons, columns) {
    const [x, y] = [0, 1].map((axis) => VITAL.unpacked(layer, "coordinates", Uint16Array, axis));
    neurons.sort((a, b) => y[a] - y[b] || a - b);
    for (let i = 0; i < neurons.length; i += columns) {
      neurons.subarray(i, i + columns).sort((a, b) => x[a] - x[b] || a - b);
    }
    return neurons;
  }
})();
