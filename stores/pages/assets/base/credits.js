// Whose photographs are shown.
(function () {
  "use strict";
  const { el } = VITAL;

  VITAL.credits = function (credits, main) {
    main.append(el("div", { class: "title" }, el("h1", null, "Photographs"),
      el("p", { class: "quiet" }, "Their authors and licences, by key.")),
      el("ul", { class: "credits" }, credits.map(([key, text]) => el("li", null, el("b", null, key), " ", text))));
    return { title: "Photographs", close: () => {} };
  };
})();
