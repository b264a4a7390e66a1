"use strict";
// Charts as SVG: axes, lines, bars, cells, marks, and what the pointer is at.

const SVG = "http://www.w3.org/2000/svg";
let errors = 0;
window.onerror = (message, source, line) => {
  errors += 1;
  document.documentElement.dataset.errors = errors;
  const note = document.createElement("p");
  note.className = "js-error";
  note.textContent = `Script error, line ${line}: ${message}`;
  document.body.append(note);
};

function add(parent, name, attributes = {}, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

function html(parent, name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

const colour = (number) => `var(--c${number % 10})`;
const count = (value) => Math.round(value).toLocaleString("en-US");

function time(us) {
  if (us < 1) return `${(us * 1e3).toPrecision(3)} ns`;
  if (us < 1e3) return `${us.toPrecision(3)} µs`;
  if (us < 1e6) return `${(us / 1e3).toPrecision(3)} ms`;
  return `${(us / 1e6).toPrecision(3)} s`;
}

function shortCount(value) {
  if (value >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (value >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  return `${+value.toPrecision(3)}`;
}

// Round values from 0 to at least `high`, about `wanted` of them.
function linearTicks(high, wanted) {
  const rough = Math.max(high, 1e-9) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough * 0.999);
  const ticks = [];
  for (let n = 0; n * step < high + step * 0.999; n += 1) ticks.push(+(n * step).toPrecision(12));
  return ticks;
}

// Powers of ten around a range of times in µs; with 2 and 5 in between if the range is small.
function logTicks(low, high) {
  const first = Math.floor(Math.log10(low) + 1e-9);
  const last = Math.max(Math.ceil(Math.log10(high) - 1e-9), first + 1);
  const ticks = [];
  for (let power = first; power <= last; power += 1) {
    ticks.push(10 ** power);
    if (last - first <= 2 && power < last) ticks.push(2 * 10 ** power, 5 * 10 ** power);
  }
  return ticks;
}

const tickTime = (us) => {
  const value = us < 1 ? [us * 1e3, "ns"] : us < 1e3 ? [us, "µs"] : us < 1e6 ? [us / 1e3, "ms"] : [us / 1e6, "s"];
  return `${+value[0].toPrecision(3)} ${value[1]}`;
};

// The empty chart with its axes. `x` and `y`: {ticks, format, label, log?, low?, high?}.
function frame(figure, { x, y, height = 290, title }) {
  figure.textContent = "";
  const width = Math.max(figure.clientWidth, 260);
  const narrow = width < 520;
  const box = { left: narrow ? 48 : 62, right: width - 14, top: 30, bottom: height - 40 };
  const svg = add(figure, "svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": title });
  const scale = (axis, from, to) => {
    const value = axis.log ? Math.log10 : (number) => number;
    const low = value(axis.low ?? axis.ticks[0]);
    const high = value(axis.high ?? axis.ticks[axis.ticks.length - 1]);
    const span = high > low ? high - low : 1;
    return (number) => {
      const share = (value(number) - low) / span;
      return from + Math.min(1, Math.max(0, share)) * (to - from);
    };
  };
  const px = scale(x, box.left, box.right);
  const py = scale(y, box.bottom, box.top);
  let last = -Infinity;
  x.ticks.forEach((tick) => {
    const at = px(tick);
    const label = x.format(tick);
    add(svg, "line", { class: "grid", x1: at, x2: at, y1: box.top, y2: box.bottom });
    // Labels that would run into each other are left out.
    if (at - last > label.length * 6.5 + 6) {
      add(svg, "text", { x: at, y: box.bottom + 17, "text-anchor": "middle" }, label);
      last = at;
    }
  });
  for (const tick of y.ticks) {
    const at = py(tick);
    add(svg, "line", { class: "grid", x1: box.left, x2: box.right, y1: at, y2: at });
    add(svg, "text", { x: box.left - 7, y: at + 4, "text-anchor": "end" }, y.format(tick));
  }
  add(svg, "line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom });
  add(svg, "text", { x: (box.left + box.right) / 2, y: height - 5, "text-anchor": "middle" }, x.label);
  add(svg, "text", { x: narrow ? 2 : 4, y: 13 }, y.label);
  return { figure, svg, px, py, box, width, height };
}

// A line through [x, y] points; null for y breaks it.
function curve(chart, points, { stroke, dashed = false, outlined = false }) {
  let piece = [];
  const flush = () => {
    if (piece.length === 1) piece.push(piece[0].replace(/^[\d.]+/, (x) => `${+x + 1}`));
    if (piece.length > 0) {
      if (outlined) add(chart.svg, "polyline", { class: "over", points: piece.join(" ") });
      add(chart.svg, "polyline", {
        class: `curve${dashed ? " dashed" : ""}`, style: `stroke:${stroke}`, points: piece.join(" "),
      });
    }
    piece = [];
  };
  for (const [x, y] of points) {
    if (y === null || y === undefined) flush();
    else piece.push(`${chart.px(x).toFixed(1)},${chart.py(y).toFixed(1)}`);
  }
  flush();
}

function bar(chart, from, to, low, high, fill) {
  if (high <= low) return;
  const left = chart.px(from);
  const width = Math.max(chart.px(to) - left - 1, 1);
  const top = chart.py(high);
  add(chart.svg, "rect", { class: "bar", x: left.toFixed(1), y: top.toFixed(1), width: width.toFixed(1),
    height: Math.max(chart.py(low) - top, 1).toFixed(1), style: `fill:${fill}` });
}

// Vertical lines at what happened: the events by number, the takeovers in a row below.
function drawMarks(chart, marks, loadEnd) {
  if (loadEnd !== null) {
    const at = chart.px(loadEnd);
    add(chart.svg, "line", { class: "load-end", x1: at, x2: at, y1: chart.box.top, y2: chart.box.bottom });
  }
  for (const mark of marks) {
    const at = chart.px(mark.at);
    add(chart.svg, "line", { class: mark.kind, x1: at, x2: at, y1: chart.box.top - 4, y2: chart.box.bottom });
    const takeover = mark.kind === "takeover";
    const right = takeover && at < chart.box.right - 70;
    add(chart.svg, "text", { class: mark.kind, x: right ? at + 4 : at - 4, y: chart.box.top + (takeover ? 8 : -7),
      "text-anchor": takeover ? (right ? "start" : "end") : "middle" }, mark.label);
  }
}

function legend(figure, entries) {
  const list = document.createElement("div");
  list.className = "legend";
  for (const { title, stroke, dashed, box } of entries) {
    const item = html(list, "span");
    const sign = html(item, "i", box ? "box" : dashed ? "dash" : "");
    if (box) sign.style.background = stroke;
    else sign.style.borderColor = stroke;
    item.append(title);
  }
  figure.prepend(list);
  return list;
}

// Shows `describe(value on the x axis, y in pixels)` beside the pointer: {at, title, rows, dots}.
function hover(chart, unproject, describe) {
  const { figure, svg, box } = chart;
  const tip = html(figure, "div", "tip");
  tip.hidden = true;
  const group = add(svg, "g");
  const hide = () => { tip.hidden = true; group.textContent = ""; };
  const show = (event) => {
    const bounds = svg.getBoundingClientRect();
    const scale = chart.width / bounds.width;
    const x = (event.clientX - bounds.left) * scale;
    const y = (event.clientY - bounds.top) * scale;
    if (x < box.left - 8 || x > box.right + 8 || y < 0 || y > box.bottom + 8) { hide(); return; }
    const found = describe(unproject(Math.min(box.right, Math.max(box.left, x))), y);
    if (!found) { hide(); return; }
    group.textContent = "";
    const at = chart.px(found.at);
    add(group, "line", { class: "cursor", x1: at, x2: at, y1: box.top, y2: box.bottom });
    for (const dot of found.dots ?? []) {
      add(group, "circle", { class: "dot", cx: at, cy: chart.py(dot.y), r: 4, style: `fill:${dot.stroke}` });
    }
    tip.textContent = "";
    html(tip, "b", "", found.title);
    for (const row of found.rows) {
      const line = html(tip, "div");
      if (row.stroke) html(line, "i").style.background = row.stroke;
      line.append(row.text);
    }
    tip.hidden = false;
    const wide = tip.offsetWidth;
    const left = at / scale;
    const beside = left + 14 + wide > figure.clientWidth ? left - 14 - wide : left + 14;
    tip.style.left = `${Math.max(0, Math.min(beside, figure.clientWidth - wide))}px`;
    tip.style.top = `${svg.offsetTop + Math.max(0, y / scale - 40)}px`;
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", hide);
}

// The index of the number in a sorted list that is nearest to `value`.
function nearest(list, value) {
  let low = 0;
  let high = list.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (list[middle] < value) low = middle; else high = middle;
  }
  return high >= 0 && Math.abs(list[high] - value) < Math.abs(list[low] - value) ? high : low;
}
