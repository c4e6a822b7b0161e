// The wall: thousands of cells of which only those near the window exist. The page itself scrolls.
(function () {
  "use strict";
  const { el } = VITAL;
  const SMALLEST = 28, GREATEST = 420, STEP = 1.25;
  const CAPTIONED = 96;
  const AHEAD = 240;
  // Browsers lay out no more than 17 million pixels; and beyond 2 to the 24th they place by twos.
  const TALLEST = 15e6;

  class Wall {
    // `cell(index)` gives {href, label, caption, paint(element, devicePixels), pending}, where `pending` is a promise of
    // another label and caption, or null; `ratio` is width over height of a cell.
    constructor({ size, ratio = 1, cell, zoomed, recolumned }) {
      this.cell = cell;
      this.ratio = ratio;
      this.size = this.bounded(size);
      this.zoomed = zoomed || (() => {});
      this.recolumned = recolumned || (() => {});
      this.count = 0;
      this.here = 0;
      this.shown = new Map();
      this.host = el("div", { class: "wall", role: "list", "aria-label": "Pictures" });
      this.host.addEventListener("keydown", (event) => this.key(event));
      this.host.addEventListener("focusin", (event) => this.focused(event));
      this.host.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
      this.host.addEventListener("touchstart", (event) => this.touch(event), { passive: true });
      this.host.addEventListener("touchmove", (event) => this.touch(event), { passive: false });
      this.host.addEventListener("touchend", () => { this.pinch = null; });
      this.onScroll = () => this.later();
      this.onResize = () => this.layout();
      window.addEventListener("scroll", this.onScroll, { passive: true });
      this.observer = new ResizeObserver(() => { if (this.host.clientWidth !== this.width) this.layout(); });
      this.observer.observe(this.host);
    }

    close() {
      window.removeEventListener("scroll", this.onScroll);
      this.observer.disconnect();
      cancelAnimationFrame(this.frame);
    }

    bounded(size) {
      return Math.max(SMALLEST, Math.min(GREATEST, size));
    }

    // New items; the place of focus goes back to the first.
    show(count) {
      this.count = count;
      this.here = Math.min(this.here, Math.max(count - 1, 0));
      this.layout();
    }

    layout() {
      const width = this.host.clientWidth;
      if (!width) { this.later(); return; }
      this.width = width;
      this.gap = this.size < 48 ? 2 : this.size < CAPTIONED ? 4 : Math.min(20, Math.round(this.size / 9));
      this.foot = this.size >= CAPTIONED ? 26 : 0;
      const least = Math.min(this.size * this.ratio, width);
      let columns = Math.max(1, Math.floor((width + this.gap) / (least + this.gap)));
      while (this.heightOf(columns) > TALLEST) columns += 1;
      if (columns !== this.columns) {
        this.columns = columns;
        this.recolumned(columns);
      }
      this.across = this.acrossOf(columns);
      this.tall = this.across / this.ratio;
      this.pitch = this.tall + this.foot + this.gap;
      this.host.style.height = this.heightOf(columns) + "px";
      this.host.classList.toggle("captioned", this.foot > 0);
      this.host.classList.toggle("tiny", this.size < 48);
      const kept = this.host.contains(document.activeElement);
      for (const node of this.shown.values()) node.remove();
      this.shown.clear();
      this.update();
      if (kept) this.focus(this.here);
    }

    acrossOf(columns) {
      return (this.width - this.gap * (columns - 1)) / columns;
    }

    heightOf(columns) {
      const pitch = this.acrossOf(columns) / this.ratio + this.foot + this.gap;
      return Math.max(0, Math.ceil(this.count / columns) * pitch - this.gap);
    }

    later() {
      if (this.frame) return;
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        if (this.width) this.update();
        else this.layout();
      });
    }

    update() {
      if (!this.host.isConnected) return;
      const top = this.host.getBoundingClientRect().top;
      const from = Math.max(0, Math.floor((-top - AHEAD) / this.pitch));
      const to = Math.ceil((window.innerHeight - top + AHEAD) / this.pitch);
      const first = from * this.columns, last = Math.min(this.count, Math.max(to, 0) * this.columns);
      for (const [index, node] of this.shown) {
        if ((index < first || index >= last) && index !== this.here) {
          node.remove();
          this.shown.delete(index);
        }
      }
      const fresh = document.createDocumentFragment();
      for (let index = first; index < last; index += 1) if (!this.shown.has(index)) fresh.append(this.make(index));
      if (this.count && !this.shown.has(this.here)) fresh.append(this.make(this.here));
      this.host.append(fresh);
    }

    make(index) {
      const { href, label, caption, paint, pending } = this.cell(index);
      const frame = el("span", { class: "tile", style: { height: this.tall + "px" } });
      paint(frame, this.tall * Math.min(window.devicePixelRatio || 1, 3));
      const link = el("a", { class: "cell", href, "aria-label": label, title: label, "data-index": index,
        tabindex: index === this.here ? "0" : "-1" }, frame, this.foot ? el("span", { class: "name" }, caption) : null);
      const row = Math.floor(index / this.columns), column = index % this.columns;
      const node = el("div", { role: "listitem", class: "item", "aria-posinset": index + 1, "aria-setsize": this.count,
        style: { width: this.across + "px",
          transform: "translate(" + column * (this.across + this.gap) + "px," + row * this.pitch + "px)" } }, link);
      this.shown.set(index, node);
      if (pending) pending.then(() => { if (this.shown.get(index) === node) this.rename(index, link); }, () => {});
      return node;
    }

    rename(index, link) {
      const { label, caption } = this.cell(index);
      link.setAttribute("aria-label", label);
      link.title = label;
      if (this.foot) link.lastChild.textContent = caption;
    }

    // One stop of the tab key; arrows move within.
    focus(index, still) {
      const before = this.shown.get(this.here);
      this.here = Math.max(0, Math.min(this.count - 1, index));
      if (before) before.firstChild.tabIndex = -1;
      if (!this.shown.has(this.here)) this.host.append(this.make(this.here));
      const link = this.shown.get(this.here).firstChild;
      link.tabIndex = 0;
      link.focus({ preventScroll: true });
      if (!still) this.reveal(this.here);
    }

    reveal(index) {
      const box = this.host.getBoundingClientRect();
      const top = box.top + Math.floor(index / this.columns) * this.pitch;
      const bar = document.querySelector(".bar");
      const over = bar ? bar.getBoundingClientRect().bottom + 12 : 12;
      if (top < over) window.scrollBy(0, top - over);
      else if (top + this.pitch > window.innerHeight) window.scrollBy(0, top + this.pitch - window.innerHeight);
    }

    focused(event) {
      const link = event.target.closest(".cell");
      if (!link) return;
      const index = Number(link.dataset.index);
      if (index !== this.here) this.focus(index, true);
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const rows = Math.max(1, Math.floor(window.innerHeight / this.pitch) - 1);
      const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns,
        PageDown: rows * this.columns, PageUp: -rows * this.columns };
      let to = null;
      if (event.key in moves) to = this.here + moves[event.key];
      if (event.key === "Home") to = 0;
      if (event.key === "End") to = this.count - 1;
      if (to === null) return;
      event.preventDefault();
      if (to >= 0 && to < this.count) this.focus(to);
      else if (event.key.startsWith("Page")) this.focus(to < 0 ? 0 : this.count - 1);
    }

    wheel(event) {
      if (!event.ctrlKey) return;
      event.preventDefault();
      this.zoom(this.size * Math.exp(-event.deltaY / 300), event.clientY);
    }

    touch(event) {
      if (event.touches.length !== 2) return;
      const [a, b] = event.touches;
      const apart = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
      if (!this.pinch) { this.pinch = { apart, size: this.size }; return; }
      if (event.cancelable) event.preventDefault();
      this.zoom((this.pinch.size * apart) / this.pinch.apart, (a.clientY + b.clientY) / 2);
    }

    step(direction) {
      this.zoom(this.size * Math.pow(STEP, direction));
    }

    // Change the cells' size; what lies at height `y` of the window stays there.
    zoom(size, y) {
      const wanted = this.bounded(size);
      if (Math.abs(wanted - this.size) < 0.5) return;
      const top = this.host.getBoundingClientRect().top;
      const at = y === undefined ? Math.max(0, window.innerHeight / 2) : y;
      const index = Math.max(0, Math.floor((at - top) / this.pitch)) * this.columns;
      const atTop = top >= 0;
      this.size = wanted;
      this.layout();
      if (!atTop) {
        const now = this.host.getBoundingClientRect().top + Math.floor(index / this.columns) * this.pitch;
        window.scrollBy(0, now - at + this.pitch / 2);
      }
      this.zoomed(this.size);
    }
  }

  // The picture as a background: from a sheet where that is sharp enough, else the sheet under the file itself. A
  // picture that is `alone` among those of other sheets is its own file at any size, which is a tenth of a sheet.
  function paint(node, layer, neuron, pixels, alone) {
    const tiles = VITAL.site().tiles;
    const size = pixels <= tiles.small * 1.15 ? "small" : "middle";
    const tile = VITAL.image.tile(layer, neuron, size);
    const sheet = ["url(\"" + encodeURI(tile.file) + "\")", tile.x + "% " + tile.y + "%",
      tile.across * 100 + "% " + tile.across * 100 + "%"];
    const full = "url(\"" + encodeURI(VITAL.image.full(layer, neuron)) + "\")";
    if (alone) {
      node.style.backgroundImage = full;
      node.style.backgroundSize = "100% 100%";
      return;
    }
    if (pixels <= tiles.middle * 1.35) {
      [node.style.backgroundImage, node.style.backgroundPosition, node.style.backgroundSize] = sheet;
      return;
    }
    node.style.backgroundImage = full + "," + sheet[0];
    node.style.backgroundPosition = "0 0," + sheet[1];
    node.style.backgroundSize = "100% 100%," + sheet[2];
  }

  VITAL.Wall = Wall;
  VITAL.paint = paint;
  VITAL.sizes = { smallest: SMALLEST, greatest: GREATEST };
})();
