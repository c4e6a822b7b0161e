// Two kinds of plot, drawn as SVG: sorted rows (target against picture) and the loss over the steps.
(function () {
  "use strict";
  const { svg, el } = VITAL;
  const WIDTH = 280, HEIGHT = 130, LEFT = 40, RIGHT = 8, TOP = 8, BOTTOM = 20;

  function scale(low, high, from, to) {
    const span = high - low || 1;
    return (value) => from + ((value - low) / span) * (to - from);
  }

  function path(values, x, y) {
    let line = "", pen = false;
    values.forEach(function (value, i) {
      if (value === null) { pen = false; return; }
      line += (pen ? "L" : "M") + x(i).toFixed(1) + " " + y(value).toFixed(1);
      pen = true;
    });
    return line;
  }

  function frame(title, low, high, y, ends, lines) {
    const ticks = [low, high].map((value) => svg("text", {
      x: LEFT - 6, y: y(value) + 3.5, "text-anchor": "end", class: "tick",
    }, VITAL.number(value)));
    const foot = ends.map((text, i) => svg("text", {
      x: i ? WIDTH - RIGHT : LEFT, y: HEIGHT - 5, "text-anchor": i ? "end" : "start", class: "tick",
    }, text));
    const axis = svg("path", {
      d: "M" + LEFT + " " + TOP + "V" + (HEIGHT - BOTTOM) + "H" + (WIDTH - RIGHT), class: "axis",
    });
    return svg("svg", { viewBox: "0 0 " + WIDTH + " " + HEIGHT, role: "img", "aria-label": title, class: "plot" },
      axis, ticks, foot, lines);
  }

  // `lines`: [class, values] each, on common axes.
  function plot(title, lines, ends, logarithmic) {
    const shown = lines.map(([kind, values]) => [kind, logarithmic
      ? values.map((value) => (value > 0 ? Math.log10(value) : null)) : values]);
    const all = shown.flatMap((line) => line[1]).filter((value) => value !== null);
    if (!all.length) return null;
    const low = Math.min(...all), high = Math.max(...all);
    const y = scale(low, high === low ? low + 1 : high, HEIGHT - BOTTOM, TOP + 4);
    const drawn = shown.map(([kind, values]) => svg("path", {
      d: path(values, scale(0, Math.max(values.length - 1, 1), LEFT, WIDTH - RIGHT), y), class: "line " + kind,
    }));
    const real = (value) => (logarithmic ? Math.pow(10, value) : value);
    const made = frame(title, real(low), real(high), (value) => y(logarithmic ? Math.log10(value) : value), ends, drawn);
    return made;
  }

  VITAL.curvePlot = function (curve) {
    const [node, low, high, ...rows] = curve;
    // rows come as thousandths between the least and the greatest value
    const [target, picture] = rows.map((row) => row.map((value) => (value === null ? null : low + ((high - low) * value) / 999)));
    const made = plot("Sorted activations at " + node + ": target and picture",
      [["target", target], ["picture", picture]], ["smallest", "greatest"], false);
    return made && el("figure", { class: "curve" }, el("figcaption", null, node === "input" ? "input (colours)" : node), made);
  };

  VITAL.lossPlot = function (loss, steps) {
    const positive = loss.every((value) => value === null || value > 0);
    return plot("Loss over the steps" + (positive ? ", logarithmic" : ""),
      [["picture", loss]], ["step 1", "step " + (steps || loss.length)], positive);
  };

  VITAL.plotKey = function (first, second) {
    return el("p", { class: "key" },
      el("span", { class: "swatch target" }), first, el("span", { class: "swatch picture" }), second);
  };
})();
