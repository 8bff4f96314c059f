"use strict";
// One page and no network: matrices as chains of cores, in which every bond is cut by a slider and all that follows is computed here.

// What a reader reads, in one place.
const WORDS = {
  bond: (k) => `bond ${k}`,
  width: (asked, usable) => (asked === usable ? `${asked}` : `${asked} (usable ${usable})`),
  step: (k, n, title) => `Step ${k} of ${n}: ${title}`,
  presets: { "nothing cut": (full) => full, halved: (full) => Math.floor(full / 2), quartered: (full) => Math.floor(full / 4), "all at 3": () => 3 },
  error: (share) => `The rebuilt matrix is off by ${share} % of the norm. `,
  heard: (error, share) => `Off by ${error} % of the norm, with ${share} % of the numbers.`,
  model: (share, uncut) => `Your chain has ${share} % of its matrix's numbers. Uncut, the model has an AUC of ${uncut} %; guessing has 50 %.`,
  nearest: (ratio, list) => `The nearest measurement, all matrices at ${ratio} %: ${list}.`,
  share: "share of the numbers",
  axes: ["share of the numbers, per cent", "AUC, per cent"],
  chart: "AUC of the whole model against the share of its numbers that is kept",
};

const FAR = 0.15; // a measurement at a share of the numbers that differs by more says nothing of this chain
const PAUSE = 500; // milliseconds without a change, before it is said

const percent = (value, digits = 1) => (100 * value).toFixed(digits);
const ofNumbers = (share) => percent(share, share < 0.01 ? 1 : 0);

function decoded(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return Float64Array.from(new Float32Array(bytes.buffer));
}

// The product of two matrices that lie row by row; `columns` is how many the second has. Two rows of the one and four of the other at a
// time, each number then read and written a quarter as often: a third of the time.
function product(left, right, columns) {
  const inner = right.length / columns;
  const rows = left.length / inner;
  const found = new Float64Array(rows * columns);
  const [evenRows, wholeInner] = [rows - (rows % 2), inner - (inner % 4)];
  for (let row = 0; row < evenRows; row += 2) {
    const [first, second] = [row * columns, (row + 1) * columns];
    for (let k = 0; k < wholeInner; k += 4) {
      const [a, b, c, d] = left.subarray(row * inner + k, row * inner + k + 4);
      const [e, f, g, h] = left.subarray((row + 1) * inner + k, (row + 1) * inner + k + 4);
      let [w, x, y, z] = [k * columns, (k + 1) * columns, (k + 2) * columns, (k + 3) * columns];
      for (let column = 0; column < columns; column += 1, w += 1, x += 1, y += 1, z += 1) {
        found[first + column] += a * right[w] + b * right[x] + c * right[y] + d * right[z];
        found[second + column] += e * right[w] + f * right[x] + g * right[y] + h * right[z];
      }
    }
  }
  for (let row = 0; row < rows; row += 1) {
    for (let k = row < evenRows ? wholeInner : 0; k < inner; k += 1) {
      const factor = left[row * inner + k];
      for (let column = 0; column < columns; column += 1) {
        found[row * columns + column] += factor * right[k * columns + column];
      }
    }
  }
  return found;
}

function distance(left, right) {
  let sum = 0;
  for (let k = 0; k < left.length; k += 1) {
    sum += (left[k] - right[k]) ** 2;
  }
  return Math.sqrt(sum);
}

// A matrix and its chain, with the values of every bond in their order: to cut a bond is to take the first of them.
class CutChain extends Chain {
  constructor(data) {
    super(data);
    this.cores = data.cores.map(decoded);
    [this.rows, this.columns] = [this.inLegs, this.outLegs].map((legs) => legs.reduce((all, leg) => all * leg, 1));
    this.places = this.placesInMatrix();
    this.matrix = this.rebuilt(this.full);
    this.norm = distance(this.matrix, new Float64Array(this.matrix.length));
  }

  // Where in the matrix a number belongs that the cores give in the order of their pairs: i_1 j_1 i_2 j_2 and so on.
  placesInMatrix() {
    let places = [0];
    let [row, column] = [this.rows, this.columns];
    this.inLegs.forEach((inLeg, k) => {
      row /= inLeg;
      column /= this.outLegs[k];
      const steps = Array.from({ length: this.pairs[k] }, (_, pair) => {
        const [i, j] = [Math.floor(pair / this.outLegs[k]), pair % this.outLegs[k]];
        return i * row * this.columns + j * column;
      });
      places = places.flatMap((place) => steps.map((step) => place + step));
    });
    return Int32Array.from(places);
  }

  // The first values of a core's two bonds.
  slice(k, left, right) {
    const [stored, pair] = [this.stored[k + 1], this.pairs[k]];
    const found = new Float64Array(left * pair * right);
    for (let row = 0; row < left * pair; row += 1) {
      found.set(this.cores[k].subarray(row * stored, row * stored + right), row * right);
    }
    return found;
  }

  rebuilt(bonds) {
    const ends = [1, ...this.toCut(bonds), 1].map((bond, k) => Math.min(bond, this.stored[k]));
    const central = Math.floor(this.pairs.length / 2);
    const slices = this.pairs.map((_, k) => this.slice(k, ends[k], ends[k + 1]));
    let left = slices[0];
    for (let k = 1; k <= central; k += 1) {
      left = product(left, slices[k], this.pairs[k] * ends[k + 1]);
    }
    let right = slices.at(-1);
    for (let k = this.pairs.length - 2; k > central; k -= 1) {
      right = product(slices[k], right, right.length / ends[k + 1]);
    }
    const inOrder = product(left, right, right.length / ends[central + 1]);
    const matrix = new Float64Array(inOrder.length);
    for (let k = 0; k < matrix.length; k += 1) {
      matrix[this.places[k]] = inOrder[k];
    }
    return matrix;
  }

  error(rebuilt) {
    return distance(rebuilt, this.matrix) / this.norm;
  }

  share(bonds) {
    return this.sizes(bonds).reduce((sum, size) => sum + size, 0) / this.matrix.length;
  }
}

// Blue for what is below zero, orange for what is above, white for zero.
function paint(canvas, numbers, columns, largest) {
  const rows = numbers.length / columns;
  Object.assign(canvas, { width: columns, height: rows });
  const image = new ImageData(columns, rows);
  for (let k = 0; k < numbers.length; k += 1) {
    const depth = Math.min(Math.abs(numbers[k]) / largest, 1);
    const colour = numbers[k] < 0 ? [0, 114, 178] : [213, 94, 0];
    for (let part = 0; part < 3; part += 1) {
      image.data[4 * k + part] = 255 - (255 - colour[part]) * depth;
    }
    image.data[4 * k + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// AUC against the share of the numbers, a line for each way to cut, and an upright line where the chain above stands.
function chart(curves, uncut, share) {
  const [width, height, edge] = [640, 330, 62];
  const x = (value) => edge + (Math.min(value, 1.15) / 1.15) * (width - edge - 10);
  const y = (value) => height - edge - ((value - 0.5) / 0.45) * (height - edge - 20);
  const colours = ["#d55e00", "#009e73", "#0072b2"];
  const text = (content, left, top, more = "") => `<text x="${left}" y="${top}" font-size="15" ${more}>${content}</text>`;
  const line = (x1, y1, x2, y2, more) => `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" ${more}/>`;
  const parts = [line(x(0), y(0.5), x(1.15), y(0.5), 'stroke="#222"'), line(x(0), y(0.5), x(0), y(0.95), 'stroke="#222"')];
  for (const value of [0.2, 0.4, 0.6, 0.8, 1]) {
    parts.push(text(percent(value, 0), x(value), y(0.5) + 20, 'text-anchor="middle"'));
  }
  for (const value of [0.5, 0.6, 0.7, 0.8, 0.9]) {
    parts.push(text(percent(value, 0), x(0) - 8, y(value) + 5, 'text-anchor="end"'));
  }
  parts.push(text(WORDS.axes[0], (x(0) + x(1.15)) / 2, height - 12, 'text-anchor="middle"'));
  parts.push(text(WORDS.axes[1], 0, 0, `text-anchor="middle" transform="translate(18 ${y(0.72)}) rotate(-90)"`));
  parts.push(line(x(0), y(uncut), x(1.15), y(uncut), 'stroke="#888" stroke-dasharray="4 4"'));
  curves.forEach(({ name, points }, k) => {
    const path = points.map(({ ratio, auc }) => `${x(ratio)},${y(auc.mean)}`).join(" ");
    parts.push(`<polyline points="${path}" fill="none" stroke="${colours[k]}" stroke-width="2.5"/>`);
    points.forEach(({ ratio, auc }) => {
      const [low, high] = auc.interval;
      parts.push(line(x(ratio), y(low), x(ratio), y(high), `stroke="${colours[k]}" stroke-width="2"`));
    });
    parts.push(text(name, x(0.78), y(0.68) + 26 * k, `fill="${colours[k]}" font-weight="bold"`));
  });
  parts.push(line(x(share), y(0.5), x(share), y(0.95), 'stroke="#222" stroke-width="3" id="here"'));
  return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${WORDS.chart}">${parts.join("")}</svg>`;
}

// The same curves as rows of text, a head first.
function tableOf(curves) {
  const cells = ({ mean, interval: [low, high] }) => `${percent(mean)} % [${percent(low)}, ${percent(high)}]`;
  const rows = curves[0].points.map(({ ratio }) => [
    `${percent(ratio, 0)} %`,
    ...curves.map(({ points }) => cells(points.find((point) => point.ratio === ratio).auc)),
  ]);
  return [[WORDS.share, ...curves.map(({ name }) => `${name}, AUC`)], ...rows];
}

const data = JSON.parse(document.getElementById("data").textContent);
const chains = data.matrices.map((matrix) => new CutChain(matrix));
const at = (id) => document.getElementById(id);
const now = { matrix: 0, bonds: [], step: 0 };
let waiting = false;
let [news, pause] = ["", 0];

// Say the news, if there are some, and how the chain stands, once nothing has changed for a while.
function announce(standing) {
  clearTimeout(pause);
  pause = setTimeout(() => {
    at("status").textContent = `${news} ${standing}`.trim();
    news = "";
  }, PAUSE);
}

// All that the page says of a chain cut to some bonds, as numbers.
function numbersOf(index, bonds) {
  const chain = chains[index];
  const rebuilt = chain.rebuilt(bonds);
  const usable = chain.usable(bonds);
  return {
    rebuilt,
    error: chain.error(rebuilt),
    bound: chain.bound(bonds),
    sizes: chain.sizes(bonds),
    share: chain.share(bonds),
    entropies: chain.entropies(usable),
  };
}

function modelInWords(share) {
  const { uncut, curves } = data.model;
  const ratios = curves[0].points.map(({ ratio }) => ratio);
  const nearest = ratios.reduce((best, ratio) => (Math.abs(ratio - share) < Math.abs(best - share) ? ratio : best));
  const list = curves.map(({ name, points }) => `${name} ${percent(points.find(({ ratio }) => ratio === nearest).auc.mean)} %`);
  const told = Math.abs(nearest - share) > FAR ? "" : WORDS.nearest(percent(nearest, 0), list.join(", "));
  return `${WORDS.model(ofNumbers(share), percent(uncut.mean))} ${told}`;
}

function draw() {
  waiting = false;
  const chain = chains[now.matrix];
  const found = numbersOf(now.matrix, now.bonds);
  const largest = (3 * chain.norm) / Math.sqrt(chain.matrix.length);
  const usable = chain.usable(now.bonds);
  at("chain").innerHTML = chain.picture(now.bonds);
  [...at("bonds").children].forEach((place, k) => place.tell(WORDS.width(now.bonds[k], usable[k])));
  at("short").textContent = WORDS.heard(percent(found.error), ofNumbers(found.share));
  announce(at("short").textContent);
  at("words").textContent = WORDS.error(percent(found.error)) + chain.words(now.bonds);
  paint(at("rebuilt"), found.rebuilt, chain.columns, largest);
  paint(at("lost"), found.rebuilt.map((number, k) => chain.matrix[k] - number), chain.columns, largest);
  at("model-words").textContent = modelInWords(found.share);
  at("model").innerHTML = chart(data.model.curves, data.model.uncut.mean, found.share);
}

// However many sliders move between two frames, the page is drawn once.
function drawSoon() {
  if (!waiting) {
    waiting = true;
    requestAnimationFrame(draw);
  }
}

function setBonds(bonds) {
  now.bonds = [...bonds];
  [...at("bonds").querySelectorAll("input")].forEach((input, k) => Object.assign(input, { value: bonds[k] }));
  drawSoon();
}

function setMatrix(index, bonds = chains[index].full) {
  const chain = chains[index];
  now.matrix = index;
  at("matrix").selectedIndex = index;
  at("about").textContent = data.matrices[index].about;
  at("bonds").replaceChildren(
    ...chain.full.map((full, k) => {
      const [place, label, input, told] = ["div", "label", "input", "span"].map((name) => document.createElement(name));
      Object.assign(input, { type: "range", id: `bond-${k + 1}`, min: 1, max: full, step: 1 });
      Object.assign(label, { htmlFor: input.id, textContent: WORDS.bond(k + 1) });
      place.append(label, ": ", told, input);
      place.tell = (width) => {
        told.textContent = width;
        input.setAttribute("aria-valuetext", width);
      };
      input.addEventListener("input", () => {
        now.bonds[k] = Number(input.value);
        drawSoon();
      });
      return place;
    }),
  );
  paint(at("original"), chain.matrix, chain.columns, (3 * chain.norm) / Math.sqrt(chain.matrix.length));
  setBonds(bonds);
}

function takeStep(step) {
  if (!(step in data.tour)) {
    return;
  }
  const { title, text, matrix, bonds } = data.tour[step];
  now.step = step;
  at("tour-title").textContent = WORDS.step(step + 1, data.tour.length, title);
  at("tour-text").textContent = text;
  // Not `disabled`, which would take the focus away from whoever has just pressed it.
  at("tour-back").setAttribute("aria-disabled", step === 0);
  at("tour-next").setAttribute("aria-disabled", step === data.tour.length - 1);
  setMatrix(matrix, bonds);
  news = `${at("tour-title").textContent}. ${text}`;
}

data.matrices.forEach(({ name }, k) => at("matrix").add(new Option(name, k)));
at("matrix").addEventListener("change", () => {
  setMatrix(at("matrix").selectedIndex);
  news = at("about").textContent;
});
const [head, ...rows] = tableOf(data.model.curves);
at("model-table").innerHTML =
  `<tr>${head.map((cell) => `<th scope="col">${cell}</th>`).join("")}</tr>` +
  rows.map((row) => `<tr>${row.map((cell) => `<td>${cell}</td>`).join("")}</tr>`).join("");
for (const [label, bondOf] of Object.entries(WORDS.presets)) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.addEventListener("click", () => setBonds(chains[now.matrix].full.map((full) => Math.max(1, Math.min(full, bondOf(full))))));
  at("presets").append(button, " ");
}
at("tour-back").addEventListener("click", () => takeStep(now.step - 1));
at("tour-next").addEventListener("click", () => takeStep(now.step + 1));
takeStep(0);
news = ""; // at the beginning a reader reads
