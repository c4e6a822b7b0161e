// Words for a neuron: what it may be called, how sure that is, and the photographs that speak for it or against it.
(function () {
  "use strict";
  const { el } = VITAL;

  function lead(words) {
    const [named, bound, rows] = words;
    const chance = "chance alone reaches " + VITAL.number(bound);
    if (!rows.length) return "No name: no word goes along with what activates it.";
    const [text, score] = rows[0];
    if (!named) return "No name: the best word, “" + text + "”, scores " + VITAL.number(score) + ", and " + chance + ".";
    return "“" + text + "” scores " + VITAL.number(score) + " on images that had no part in the choice; " + chance + ".";
  }

  function table(rows) {
    const head = ["Word", "Score", "When chosen", "Average precision"].map((text) => el("th", { scope: "col" }, text));
    return el("table", { class: "words" }, el("thead", null, el("tr", null, head)), el("tbody", null, rows.map(
      ([text, ...numbers]) => el("tr", null, el("th", { scope: "row" }, text),
        numbers.map((number) => el("td", null, VITAL.number(number)))))));
  }

  function photographs(rows, photos) {
    if (!photos.length || !rows.length) return null;
    return [el("p", { class: "lead" }, "The strongest of the images that had no part in the choice, and the word's score on each:"),
      el("ul", { class: "photos fours" }, photos.map(([file, key, score, label]) => el("li", null, el("figure", null,
        VITAL.photo(key, el("img", { src: VITAL.image.photo(file), loading: "lazy", width: 160, height: 160,
          alt: "Photograph " + key })),
        el("figcaption", null, VITAL.photoKey(key), label && label !== key ? el("span", null, label) : null,
          el("span", null, "“" + rows[0][0] + "” " + VITAL.number(score)))))))];
  }

  VITAL.naming = function (layer, data) {
    if (!data.words) return null;
    const [, , rows, photos] = data.words;
    return el("section", { class: "naming" }, el("h2", null, "Name"), el("p", { class: "lead" }, lead(data.words)),
      rows.length ? el("details", null, el("summary", null, "Words and evidence"), table(rows), photographs(rows, photos),
        el("p", { class: "lead" }, layer.named + ".")) : null);
  };
})();
