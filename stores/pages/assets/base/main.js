// Which page the address means, the header around it, and light or dark.
(function () {
  "use strict";
  const { el } = VITAL;
  const main = document.getElementById("main");
  let current = null;
  let turn = 0;
  const scrolls = new Map();
  let shown = "";

  VITAL.typing = (event) => /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.key !== "Escape";

  // The address follows what is looked at, without a new entry in the history.
  VITAL.settle = function (hash) {
    if (location.hash === hash) return;
    shown = hash;
    try { history.replaceState(null, "", hash); } catch (error) { /* some browsers refuse this to files */ }
  };

  function stored(value) {
    try {
      if (value === undefined) return localStorage.getItem("vital-theme");
      localStorage.setItem("vital-theme", value);
    } catch (error) { /* files may have no storage */ }
    return null;
  }

  function dark() {
    const said = document.documentElement.dataset.theme;
    return said ? said === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  function themeButton() {
    const button = el("button", { type: "button", class: "quiet", id: "theme", on: { click: function () {
      document.documentElement.dataset.theme = dark() ? "light" : "dark";
      stored(document.documentElement.dataset.theme);
      named();
    } } });
    function named() {
      button.textContent = dark() ? "Light" : "Dark";
      button.setAttribute("aria-label", dark() ? "Light pages" : "Dark pages");
    }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", named);
    named();
    return button;
  }

  function header(folder) {
    const site = VITAL.site();
    const several = site.atlases.length > 1;
    const groups = site.atlases.map((atlas) => el("div", { class: "group" },
      several ? el("span", { class: "atlas", title: atlas.url }, atlas.title) : null,
      atlas.layers.map((layer) => el("a", { href: VITAL.link(layer.folder), "aria-current": layer.folder === folder ? "page" : null },
        VITAL.heading(layer)))));
    const pair = several ? VITAL.usualPair() : null;
    const compare = pair && el("a", { class: "quiet", href: VITAL.compareLink(...pair) }, "Compare");
    document.getElementById("top").replaceChildren(el("a", { class: "site", href: "#/" }, site.title),
      el("nav", { "aria-label": "Layers" }, groups), el("div", { class: "tools" }, compare, themeButton()));
  }

  function footer() {
    const site = VITAL.site();
    document.getElementById("foot").replaceChildren(...site.atlases.map((atlas) => el("p", null, atlas.title + " — " +
      [...atlas.facts.map((pair) => pair.join(" ")), atlas.url].join(", "))),
      site.credits ? el("p", null, el("a", { href: "#/credits" }, "Whose photographs these are")) : "");
  }

  function route(hash) {
    const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
    let parts = [];
    try { parts = path.split("/").filter(Boolean).map(decodeURIComponent); } catch (error) { parts = ["?"]; }
    if (parts[0] === "compare") {
      return { kind: "compare", left: parts.slice(1, 3).join("/"), right: parts.slice(3, 5).join("/"), neuron: parts[5] };
    }
    if (parts[0] === "credits") return { kind: "credits" };
    const layers = VITAL.everyLayer();
    return { kind: "layer", folder: parts.length ? parts.slice(0, 2).join("/") : layers.length ? layers[0].folder : "",
      neuron: parts[2], query };
  }

  function known(folder) {
    if (!VITAL.everyLayer().some((one) => one.folder === folder)) throw new Error("There is no layer “" + folder + "” in these pages.");
    return VITAL.layer(folder);
  }

  function whole(text) {
    if (!/^\d+$/.test(text)) throw new Error("“" + text + "” is no neuron's number.");
    return Number(text);
  }

  // Everything a page needs, then a function that builds it.
  async function prepared(asked) {
    if (asked.kind === "credits") {
      const credits = await VITAL.need("credits", "credits.js");
      return () => VITAL.credits(credits, main);
    }
    if (asked.kind === "compare") {
      const [left, right] = await Promise.all([known(asked.left), known(asked.right)]);
      if (asked.neuron === undefined) return () => VITAL.compare(left, right, main);
      const neuron = whole(asked.neuron);
      const data = await Promise.all([left, right].map((layer) => layer.has(neuron) ? VITAL.neuron(layer, neuron) : null));
      await Promise.all([left, right].flatMap((layer) => [VITAL.captions(layer, [neuron]), VITAL.values(layer, [neuron])]));
      return () => VITAL.comparePair(left, right, neuron, data, main);
    }
    const layer = await known(asked.folder);
    if (asked.neuron === undefined) return () => VITAL.overview(layer, asked.query, main);
    const neuron = whole(asked.neuron);
    const has = layer.has(neuron);
    if (!has && neuron < layer.count) await VITAL.part(layer, "status");
    const [data] = await Promise.all([has ? VITAL.neuron(layer, neuron) : null,
      VITAL.captions(layer, [neuron, ...VITAL.neighbours(layer, neuron)]), VITAL.values(layer, [neuron])]);
    return () => VITAL.page(layer, neuron, data, main);
  }

  function failed(error) {
    main.append(el("p", { class: "empty" }, error.message), el("p", null, el("a", { href: "#/" }, "Back to the pictures")));
    return { title: "Not found", close: () => {} };
  }

  async function go() {
    const mine = (turn += 1);
    const hash = location.hash;
    let build;
    const asked = route(hash);
    try { build = await prepared(asked); } catch (error) { build = () => failed(error); }
    if (mine !== turn) return;
    if (current) {
      scrolls.set(shown, window.scrollY);
      current.close();
    }
    const first = !current;
    main.replaceChildren();
    main.className = asked.kind + (asked.neuron === undefined ? "" : " one");
    header(asked.folder);
    shown = hash;
    current = build();
    document.title = current.title + " – " + VITAL.site().title;
    const y = asked.kind === "layer" && asked.neuron === undefined ? scrolls.get(shown) || scrolls.get(hash) || 0 : 0;
    window.scrollTo(0, y);
    if (first) return;
    if (current.focus) current.focus();
    else main.focus({ preventScroll: true });
  }

  document.querySelector("[data-skip]").addEventListener("click", function (event) {
    event.preventDefault();
    const cell = document.querySelector(".wall [tabindex='0']");
    (cell || main).focus();
  });
  const theme = stored();
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  history.scrollRestoration = "manual";
  if (!VITAL.site()) {
    main.append(el("p", { class: "empty" }, "The data of these pages is missing: write them again with vital pages."));
    return;
  }
  window.addEventListener("hashchange", () => { if (location.hash !== shown) go(); });
  footer();
  go();
})();
