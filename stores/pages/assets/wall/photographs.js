// Photographs that the search box asks by: their keys lie in order, in parts, so that the beginning of one is enough.
// What is typed may be a key, a file's name with its ending, a path, or the beginning of any of them.
(function () {
  "use strict";
  // Of those that begin as asked, and of the parts that they are looked for in.
  const SHOWN = 24, PARTS = 2;

  const without = (ending, text) => text.replace(ending, "");
  const small = (text) => text.replace(/[A-Z]+/g, (some) => some.toLowerCase());
  const nameOf = (text) => small(text.slice(text.lastIndexOf("/") + 1));

  // The text after image:, or all of it where it looks like a file's name; null otherwise.
  function photograph(text) {
    const asked = /^\s*image:\s*(.*?)\s*$/i.exec(text);
    if (asked) return asked[1];
    const file = text.trim();
    return /^(?:[a-z]:\\)?[^\s,:]{4,}$/i.test(file) && /[._/\\]|\d/.test(file) && /[a-z]/i.test(file) ? file : null;
  }

  // Whether the box asks by a photograph, and by nothing else.
  VITAL.byPhotograph = (text) => /^\s*image:/i.test(text);

  // The keys that are meant where one is: as it stands, or a path and an ending around it.
  function keysOf(asked) {
    const path = asked.replaceAll("\\", "/");
    const file = without(/\.\w{2,5}$/, path);
    return [...new Set([asked, path, file])];
  }

  // Number of the part that has, or would have, what is ordered so.
  function partAt(layer, order) {
    let low = 0, high = layer.begins.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (layer.begins[middle] <= order) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  const beginnings = (asked) => [...new Set(keysOf(asked).map(nameOf))].filter((start) => start || !asked);

  // Names of the parts that have a photograph's key, and those that begin like it.
  VITAL.photographParts = function (layer, text) {
    const asked = photograph(text);
    if (asked === null || !layer.begins.length) return [];
    const parts = new Set(keysOf(asked).map((key) => partAt(layer, nameOf(key) + "\n" + key)));
    for (const start of beginnings(asked)) {
      const first = partAt(layer, start);
      for (let part = first; part < first + PARTS && part < layer.begins.length; part += 1) {
        if (part === first || layer.begins[part].startsWith(start)) parts.add(part);
      }
    }
    return [...parts].map((part) => "photographs-" + part);
  };

  const entriesOf = (layer, text) => VITAL.photographParts(layer, text).flatMap((name) => VITAL.partKnown(layer, name) || []);
  const told = ([key, [file, label, neurons]]) => ({ key, file, label, neurons });

  // The first photographs whose names begin as is asked, {key, file, label, neurons}.
  VITAL.photographsLike = function (layer, text) {
    const asked = photograph(text);
    if (asked === null) return [];
    const starts = beginnings(asked), folder = /[/\\]/.test(asked);
    const paths = keysOf(asked).map(small);
    const fits = ([key]) => starts.some((start) => nameOf(key).startsWith(start))
      && (!folder || paths.some((path) => path.endsWith(small(key)) || small(key).includes(path)));
    return entriesOf(layer, text).filter(fits).slice(0, SHOWN).map(told);
  };

  // The one photograph that is asked for; null where there is none, or several.
  VITAL.photographAsked = function (layer, text) {
    const asked = photograph(text);
    if (!asked) return null;
    const entries = entriesOf(layer, text);
    for (const key of keysOf(asked)) {
      const found = entries.find(([one]) => one === key);
      if (found) return told(found);
    }
    const like = VITAL.photographsLike(layer, text);
    return like.length === 1 ? like[0] : null;
  };
})();
