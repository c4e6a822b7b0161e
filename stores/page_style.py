"""How the static pages look. The pictures are the page, so everything else is small and grey."""

STYLE = """
:root { --page: #fbfaf8; --ink: #1d1c1a; --quiet: #77736b; --line: #e4e1db; --well: #f1efea; }
@media (prefers-color-scheme: dark) {
  :root { --page: #131312; --ink: #e9e6e0; --quiet: #918c83; --line: #2a2927; --well: #1c1b1a; }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; padding: clamp(1.25rem, 4vw, 4rem); background: var(--page); color: var(--ink);
  font: 15px/1.5 ui-sans-serif, system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
header, main, footer { max-width: 96rem; margin: 0 auto; }
h1 { margin: 0 0 1.25rem; font-size: clamp(1.6rem, 3.2vw, 2.4rem); font-weight: 500; letter-spacing: -.02em;
  line-height: 1.15; }
h2 { margin: 0 0 1.5rem; padding-bottom: .6rem; border-bottom: 1px solid var(--line);
  font-size: 1rem; font-weight: 500; }
h3 { display: flex; justify-content: space-between; gap: 1rem; margin: .8rem 0 .6rem; font-size: .95rem;
  font-weight: 500; line-height: 1.3; overflow-wrap: anywhere; }
small { color: var(--quiet); font-size: .8rem; font-weight: 400; font-variant-numeric: tabular-nums; }
a { color: inherit; }
a:focus-visible, summary:focus-visible { outline: 2px solid currentColor; outline-offset: 3px; }
dl { display: flex; flex-wrap: wrap; gap: .35rem 2rem; margin: 0; font-size: .8rem; }
dl div { display: flex; gap: .5rem; min-width: 0; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
nav { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; margin-top: 1.5rem; }
nav a { text-decoration: none; border-bottom: 1px solid var(--line); }
nav a:hover { border-color: currentColor; }
nav small { margin-left: .4rem; }
section { padding-top: clamp(2.5rem, 5vw, 4.5rem); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr)); gap: 3rem 2rem;
  align-items: start; }
article { min-width: 0; scroll-margin-top: 2rem; }
article > a { display: block; }
.picture { display: block; width: 100%; height: auto; aspect-ratio: 1; object-fit: cover;
  background: var(--well); border-radius: 3px; }
.strip { display: grid; grid-template-columns: repeat(5, 1fr); gap: 4px; }
.strip a { display: block; }
.strip img { display: block; width: 100%; aspect-ratio: 1; object-fit: cover;
  background: var(--well); border-radius: 2px; }
.strip a:hover img, article > a:hover img { opacity: .88; }
details { margin-top: .6rem; color: var(--quiet); font-size: .8rem; }
summary { cursor: pointer; width: max-content; }
details dl { flex-direction: column; margin-top: .5rem; color: var(--ink); }
.none { padding-top: 3rem; color: var(--quiet); }
footer { padding-top: clamp(3rem, 6vw, 6rem); color: var(--quiet); font-size: .75rem; }
footer ul { columns: 22rem; column-gap: 2.5rem; margin: 0; padding: 0; list-style: none; }
footer li { break-inside: avoid; margin-bottom: .35rem; overflow-wrap: anywhere; }
footer b { color: var(--ink); font-weight: 500; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
@media print { body { padding: 0; } article { break-inside: avoid; } details { display: none; } }
"""
