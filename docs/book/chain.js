"use strict";
// A chain whose bonds are cut one by one: as `Shape` and `Spectra` of the library count, from its legs and its Schmidt values. For the
// book's widgets and for the page without an installation.
class Chain {
  constructor(data) {
    Object.assign(this, data);
    this.pairs = this.inLegs.map((leg, k) => leg * this.outLegs[k]);
    this.full = this.values.map((values) => values.length);
  }

  usable(bonds) {
    const found = [1, ...bonds, 1];
    this.pairs.forEach((pair, k) => {
      found[k + 1] = Math.min(found[k + 1], found[k] * pair);
    });
    for (let k = this.pairs.length - 1; k >= 0; k -= 1) {
      found[k] = Math.min(found[k], found[k + 1] * this.pairs[k]);
    }
    return found.slice(1, -1);
  }

  // What is forced by its neighbours alone loses nothing of its own.
  toCut(bonds) {
    let found = this.usable(bonds);
    const goal = String(found);
    this.full.forEach((full, k) => {
      const wider = found.with(k, full);
      found = String(this.usable(wider)) === goal ? wider : found;
    });
    return found;
  }

  sizes(bonds) {
    const ends = [1, ...this.usable(bonds), 1];
    return this.pairs.map((pair, k) => ends[k] * pair * ends[k + 1]);
  }

  bound(bonds) {
    const squares = (values) => values.reduce((sum, value) => sum + value ** 2, 0);
    const cut = this.toCut(bonds);
    const lost = this.values.reduce((sum, values, k) => sum + squares(values.slice(cut[k])), 0);
    return Math.sqrt(lost / squares(this.values[0]));
  }

  entropies(bonds) {
    return this.values.map((values, k) => {
      const weights = values.slice(0, bonds[k]).map((value) => value ** 2);
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      return weights.filter(Boolean).reduce((sum, weight) => sum - (weight / total) * Math.log(weight / total), 0);
    });
  }

  words(bonds) {
    const usable = this.usable(bonds);
    const numbers = this.sizes(bonds).reduce((sum, size) => sum + size, 0);
    const dense = this.pairs.reduce((product, pair) => product * pair, 1);
    const smaller = String(usable) === String(bonds) ? "" : ` (asked ${bonds.join(", ")}; the neighbours cannot use more)`;
    const nats = (of) => this.entropies(of).map((value) => value.toFixed(2)).join(", ");
    const [some, all] = [numbers, dense].map((number) => number.toLocaleString("en"));
    return (
      `Bonds ${usable.join(", ")}${smaller}: ${some} numbers instead of ${all} (${((100 * numbers) / dense).toFixed(numbers < dense / 100 ? 1 : 0)} %). ` +
      `Error at most ${(100 * this.bound(bonds)).toFixed(1)} % of the norm. ` +
      `Entropies ${nats(usable)} nats, uncut ${nats(this.full)}.`
    );
  }

  // Bonds as wide as their dimension, their full width behind them; out legs up, in legs down; the central core is a square.
  picture(bonds) {
    const usable = this.usable(bonds);
    const sizes = this.sizes(bonds);
    const widest = Math.max(...this.full);
    const x = (k) => 70 + 125 * k;
    const text = (content, left, top, style = "") =>
      `<text x="${left}" y="${top}" text-anchor="middle" ${style}>${content}</text>`;
    const parts = usable.map((bond, k) => {
      const line = (size, colour) =>
        `<line x1="${x(k)}" x2="${x(k + 1)}" y1="110" y2="110" stroke="${colour}" stroke-width="${1 + (24 * size) / widest}"/>`;
      return line(this.full[k], "#ddd") + line(bond, "#0072b2") + text(bond, x(k) + 62, 88, 'fill="#0072b2" font-weight="bold"');
    });
    const labels = []; // above all lines
    sizes.forEach((size, k) => {
      const side = 20 + Math.sqrt(size) / 7;
      const core =
        k === Math.floor(sizes.length / 2)
          ? `<rect x="${x(k) - side / 2}" y="${110 - side / 2}" width="${side}" height="${side}" fill="#d55e00"/>`
          : `<circle cx="${x(k)}" cy="110" r="${side / 2}" fill="#009e73"/>`;
      parts.push(`<line x1="${x(k)}" x2="${x(k)}" y1="35" y2="185" stroke="#888" stroke-width="2"/>`, core);
      labels.push(text(this.outLegs[k], x(k), 26), text(this.inLegs[k], x(k), 206));
      labels.push(text(size.toLocaleString("en"), x(k) + 32, 165, 'font-size="13"'));
    });
    const width = x(sizes.length - 1) + 70;
    return `<svg viewBox="0 0 ${width} 220" role="img" aria-label="the chain, its bonds ${usable.join(", ")}">${[...parts, ...labels].join("")}</svg>`;
  }
}
