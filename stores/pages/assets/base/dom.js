// Elements from plain data. Text is only ever set as text, never as markup: keys and labels come from anybody's shards.
(function () {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";

  function fill(node, properties, children) {
    for (const [name, value] of Object.entries(properties || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
      else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
      else node.setAttribute(name, value === true ? "" : value);
    }
    for (const child of children.flat(Infinity)) {
      if (child !== null && child !== undefined && child !== false) node.append(child);
    }
    return node;
  }

  VITAL.el = function (name, properties, ...children) {
    return fill(document.createElement(name), properties, children);
  };

  VITAL.svg = function (name, properties, ...children) {
    return fill(document.createElementNS(SVG, name), properties, children);
  };

  // Said to screen readers, without moving anybody's place.
  VITAL.say = function (text) {
    document.getElementById("say").textContent = text;
  };

  VITAL.facts = function (pairs) {
    return VITAL.el("dl", { class: "facts" }, pairs.filter((pair) => pair[1] !== "").map(([name, value]) =>
      VITAL.el("div", null, VITAL.el("dt", null, name), VITAL.el("dd", null, value))));
  };

  // Commands that break between words only, not at the dashes of an option.
  VITAL.commandLines = function (lines) {
    return VITAL.el("div", { class: "lines" }, lines.map((line) => VITAL.el("code", null, line.split(" ").flatMap((word, i) =>
      [i ? " " : "", VITAL.el("span", { class: "word" }, word)]))));
  };

  // A button that copies a text, and says so.
  VITAL.copier = function (text, label) {
    const button = VITAL.el("button", { type: "button", class: "quiet", on: {
      click: function () {
        const done = function () {
          button.textContent = "Copied";
          VITAL.say("Copied");
          setTimeout(function () { button.textContent = label; }, 1500);
        };
        const source = typeof text === "function" ? text() : text;
        if (navigator.clipboard && window.isSecureContext) navigator.clipboard.writeText(source).then(done, byHand);
        else byHand();
        function byHand() {
          const area = VITAL.el("textarea", { class: "unseen", "aria-hidden": "true" });
          area.value = source;
          document.body.append(area);
          area.select();
          if (document.execCommand("copy")) done();
          area.remove();
        }
      },
    } }, label);
    return button;
  };
})();
