// What is typed into the search box, as neurons. Numbers and ranges name neurons (7, 12:20); other words are looked for
// in names and, with label: before them, in the labels of references. image: and the beginning of a photograph's name
// ask for the neurons that it excites. Indexes are in parts, and only those that the words name are read.
(function () {
  "use strict";
  const KEY = 2;
  // Letters of a word that are kept when nothing has all of it.
  const LEAST = 3;

  // As the part is chosen where the index is written.
  function partOf(key, parts) {
    let total = 0;
    for (let i = 0; i < key.length; i += 1) total = (total * 31 + key.charCodeAt(i)) % 1000003;
    return total % parts;
  }

  // What stands under a key of an index that has it; empty where the index has not.
  function entry(layer, index, key) {
    const parts = layer.indexes[index];
    const part = parts ? VITAL.partKnown(layer, index + "-" + partOf(key, parts)) : null;
    const found = part && part.find(([one]) => one === key);
    return found ? found[1] : [];
  }

  const keyOf = (word) => [...word].slice(0, KEY).join("");

  // What the box asks for: a list of {first, last} for numbers and {index, words} for words, any of which may be met.
  function asked(layer, text) {
    if (VITAL.byPhotograph(text)) return [];
    return text.toLowerCase().split(",").map((part) => part.trim()).filter(Boolean).flatMap(function (part) {
      const span = /^(\d+)\s*(?::|-|–)\s*(\d+)$/.exec(part);
      if (span) return [{ first: Number(span[1]), last: part.includes(":") ? Number(span[2]) - 1 : Number(span[2]) }];
      const single = /^\d+$/.test(part) ? [{ first: Number(part), last: Number(part) }] : [];
      // a channel's number is no part of its name, that of a class may be
      if (single.length && !VITAL.isClasses(layer)) return single;
      const labels = /^label:\s*(.*)$/.exec(part);
      const words = (labels ? labels[1] : part).split(/\s+/).filter(Boolean);
      return [...single, { index: labels || !layer.names ? "labels" : "names", words }];
    });
  }

  // Names of the parts of the layer's data that a search needs.
  VITAL.searchParts = function (layer, text) {
    const keys = asked(layer, text).flatMap(({ index, words }) => (words || []).map((word) => [index, keyOf(word)]));
    return keys.filter(([index]) => layer.indexes[index])
      .map(([index, one]) => index + "-" + partOf(one, layer.indexes[index])).concat(VITAL.photographParts(layer, text));
  };

  // Neurons whose texts have a word, and how much each counts: all ends of words that begin with it.
  function having(layer, index, word) {
    const found = new Map();
    for (const [end, steps, counts] of entry(layer, index, keyOf(word))) {
      if (!end.startsWith(word)) continue;
      let neuron = 0;
      steps.forEach(function (step, i) {
        neuron += step;
        found.set(neuron, (found.get(neuron) || 0) + (counts ? counts[i] : 1));
      });
    }
    return found;
  }

  // The longest beginning of a word that some text has; empty where there is none of `LEAST` letters.
  function known(layer, index, word) {
    const letters = [...word];
    for (let length = letters.length; length >= LEAST; length -= 1) {
      const start = letters.slice(0, length).join("");
      if (having(layer, index, start).size) return start;
    }
    return "";
  }

  function ofWords(layer, index, words) {
    const [first, ...others] = words.map((word) => having(layer, index, word));
    if (!first) return new Map();
    return new Map([...first].filter(([neuron]) => others.every((one) => one.has(neuron))));
  }

  // Those that a search finds among the ones with pictures: {neurons, ranked, photograph, like, instead}, in their order
  // or, `ranked`, the best first. Where no words are met, a `photograph` may be meant, or some that are `like` it; else
  // the neurons have beginnings of the words, which `instead` names. Every part it needs is there by now.
  VITAL.found = function (layer, text) {
    const tests = asked(layer, text), none = { photograph: null, like: [], instead: [] };
    if (!tests.length && !VITAL.byPhotograph(text)) return { ...none, neurons: layer.made, ranked: false };
    const [found, ranked] = met(layer, tests);
    if (found.size) return { ...none, ...inOrder(layer, found, ranked) };
    const photograph = VITAL.photographAsked(layer, text);
    if (photograph) return { ...none, neurons: photograph.neurons.filter(layer.has), ranked: true, photograph };
    const like = VITAL.photographsLike(layer, text);
    if (like.length) return { ...none, neurons: [], ranked: true, like };
    const instead = [];
    const shorter = tests.filter((test) => test.words).map(({ index, words }) => ({ index, words: words.map(function (word) {
      const start = having(layer, index, word).size ? word : known(layer, index, word);
      if (start !== word) instead.push([word, start]);
      return start;
    }).filter(Boolean) }));
    return { ...none, ...inOrder(layer, ...met(layer, shorter)), instead };
  };

  // Neurons that meet any of the tests, with how much each counts, and whether counts matter.
  function met(layer, tests) {
    const found = new Map();
    let ranked = false;
    for (const { first, last, index, words } of tests) {
      if (words) {
        for (const [neuron, count] of ofWords(layer, index, words)) found.set(neuron, (found.get(neuron) || 0) + count);
        ranked = ranked || index === "labels";
      } else {
        for (let i = first; i <= Math.min(last, layer.count - 1); i += 1) found.set(i, (found.get(i) || 0) + 1);
      }
    }
    return [found, ranked];
  }

  function inOrder(layer, found, ranked) {
    const neurons = [...found.keys()].filter(layer.has);
    neurons.sort((a, b) => (ranked ? found.get(b) - found.get(a) : 0) || a - b);
    return { neurons, ranked };
  }
})();
