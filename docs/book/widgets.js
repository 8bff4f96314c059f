"use strict";
// The widgets of the book: controls are made from the data that stand in a box, and words and picture follow them.

const dataOf = (box) => JSON.parse(box.querySelector("script").textContent);

// A control with its name, that calls `moved` with the index of its chosen option. A slider tells the option behind it.
function control(node, index, moved) {
  const input = document.createElement(node.kind === "select" ? "select" : "input");
  const label = document.createElement("label");
  const value = document.createElement("output");
  const tell = () => {
    value.textContent = node.options[input.value];
    input.setAttribute("aria-valuetext", value.textContent);
  };
  label.append(node.control, " ", input);
  if (node.kind === "select") {
    node.options.forEach((option, k) => input.add(new Option(option, k)));
  } else {
    Object.assign(input, { type: "range", min: 0, max: node.options.length - 1, step: 1 });
    label.append(" ", value);
  }
  label.set = (k) => {
    input.value = k;
    tell();
  };
  input.addEventListener("input", () => {
    tell();
    moved(Number(input.value));
  });
  label.set(index);
  return label;
}

// A tree of settings: below each option of a control another control, or a frame.
function showFrames(box) {
  const tree = dataOf(box);
  const controls = box.querySelector(".controls");
  const picture = box.querySelector("img");
  const folder = picture.getAttribute("src").replace(/[^/]*$/, "");
  const path = [];

  // Controls from a depth on are made anew: their options may depend on those above.
  function draw(from) {
    while (controls.children.length > from) {
      controls.lastChild.remove();
    }
    let node = tree;
    for (let depth = 0; node.below; depth += 1) {
      path[depth] = Math.min(path[depth] ?? node.start, node.below.length - 1);
      if (depth >= from) {
        const moved = (index) => {
          path[depth] = index;
          draw(depth + 1);
        };
        controls.append(control(node, path[depth], moved));
      }
      node = node.below[path[depth]];
    }
    box.querySelector("p").textContent = node.words;
    picture.src = folder + node.image;
  }

  draw(0);
}

function showBonds(box) {
  const chain = new Chain(dataOf(box));
  const controls = box.querySelector(".controls");
  const bonds = [...chain.full];

  function draw() {
    box.querySelector("p").textContent = chain.words(bonds);
    box.querySelector(".picture").innerHTML = chain.picture(bonds);
  }

  const sliders = chain.full.map((full, k) => {
    const options = Array.from({ length: full }, (_, index) => index + 1);
    return control({ control: `bond ${k + 1}`, kind: "range", options }, full - 1, (index) => {
      bonds[k] = index + 1;
      draw();
    });
  });
  const buttons = Object.entries(chain.presets).map(([name, preset]) => {
    const button = document.createElement("button");
    button.append(name);
    button.addEventListener("click", () => {
      preset.forEach((bond, k) => {
        bonds[k] = bond;
        sliders[k].set(bond - 1);
      });
      draw();
    });
    return button;
  });
  controls.append(...sliders, ...buttons);
  draw();
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("div.frames").forEach(showFrames);
  document.querySelectorAll("div.bonds").forEach(showBonds);
});
