"use strict";
// What is drawn from the figures of the run.

const data = JSON.parse(document.getElementById("data").textContent);
const series = data.series;
const charts = new Map();

const seconds = (at) => `${+at.toFixed(3)} s`;
const timeAxis = (figure) => {
  const ticks = linearTicks(data.end, figure.clientWidth < 520 ? 5 : 10).filter((tick) => tick <= data.end * 1.0001);
  return { ticks, low: 0, high: data.end, format: (tick) => `${tick}`, label: "time (s)" };
};
const unprojectTime = (chart) => (x) =>
  ((x - chart.box.left) / (chart.box.right - chart.box.left)) * data.end;
const marksAt = (at) => data.marks
  .filter((mark) => Math.abs(mark.at - at) < data.end / 40)
  .map((mark) => ({ text: `${mark.text}, ${seconds(mark.at)}`, stroke: `var(--${mark.kind})` }));

// Lines over time: [{title, stroke, values, dashed?}] of the intervals of the series.
function linesOverTime(figure, lines, y, title, at = series.at) {
  const chart = frame(figure, { x: timeAxis(figure), y, title });
  for (const line of lines) curve(chart, at.map((time, n) => [time, line.values[n]]), line);
  drawMarks(chart, data.marks, data.load_end);
  legend(figure, lines);
  hover(chart, unprojectTime(chart), (time) => {
    if (at.length === 0) return null;
    const n = nearest(at, time);
    const shown = lines.filter((line) => line.values[n] !== null);
    return {
      at: at[n],
      title: seconds(at[n]),
      rows: shown.map((line) => ({ stroke: line.stroke, text: `${line.title}: ${y.show(line.values[n])}` }))
        .concat(marksAt(at[n])),
      dots: shown.map((line) => ({ stroke: line.stroke, y: line.values[n] })),
    };
  });
  return chart;
}

function linearAxis(figure, lines, label) {
  const high = Math.max(...lines.flatMap((line) => line.values), 1);
  return { ticks: linearTicks(high, 5), format: shortCount, show: count, label };
}

function percentiles(figure) {
  const lines = data.curves.flatMap((pair) => {
    const stroke = colour(pair.colour);
    const answered = { title: pair.title, stroke, points: pair.answered };
    if (!pair.losses) return [answered];
    return [answered, { title: `${pair.title}, losses as time-outs`, stroke, dashed: true, points: pair.losses }];
  }).filter((line) => line.points.length > 0);
  if (lines.length === 0) { html(figure, "p", "", "Nothing was measured."); return; }
  const all = lines.flatMap((line) => line.points.map((point) => point[1]));
  const most = Math.max(...lines.map((line) => line.points[line.points.length - 1][0]));
  const nines = Math.min(7, Math.max(2, Math.ceil(most)));
  const ticks = [0, Math.log10(2), ...Array.from({ length: nines }, (_, n) => n + 1)];
  const percent = (value) => `${+(100 * (1 - 10 ** -value)).toFixed(Math.max(0, Math.ceil(value) - 1))} %`;
  const chart = frame(figure, {
    x: { ticks, format: percent, label: "percentile, by nines" },
    y: { ticks: logTicks(Math.min(...all), Math.max(...all)), log: true, format: tickTime, label: "latency, logarithmic" },
    height: 340, title: "Latency by percentile",
  });
  for (const line of lines) curve(chart, line.points, line);
  legend(figure, lines);
  const unproject = (x) => ((x - chart.box.left) / (chart.box.right - chart.box.left)) * nines;
  hover(chart, unproject, (at) => {
    const rows = [];
    const dots = [];
    for (const line of lines) {
      const xs = line.points.map((point) => point[0]);
      if (at > xs[xs.length - 1] + 0.02) continue;
      const point = line.points[nearest(xs, at)];
      rows.push({ stroke: line.stroke, text: `${line.title}: ${time(point[1])}` });
      dots.push({ stroke: line.stroke, y: point[1] });
    }
    const exact = (100 * (1 - 10 ** -at)).toFixed(Math.ceil(at) + 1);
    return { at, title: `${exact} %`, rows, dots };
  });
}

let shownHeat = 0;
function heat(figure) {
  const map = data.heat[shownHeat];
  if (!map) { html(figure, "p", "", "Nothing was measured."); return; }
  const edge = (row) => 10 ** (row / data.rows_per_decade) / 1e3;
  const chart = frame(figure, {
    x: timeAxis(figure),
    y: { ticks: logTicks(edge(map.low), edge(map.high + 1)).filter((tick) => tick >= edge(map.low) * 0.99 &&
        tick <= edge(map.high + 1) * 1.01), low: edge(map.low), high: edge(map.high + 1), log: true, format: tickTime,
    label: "latency, logarithmic" },
    height: 330, title: "Latency over time",
  });
  const most = Math.max(...map.cells.map((cell) => cell[2]), 1);
  const shade = (cell) => 0.12 + 0.88 * (Math.log(cell) / Math.max(Math.log(most), 1e-9));
  const seam = (from, to) => ({ x: chart.px(from).toFixed(2), width: Math.max(chart.px(to) - chart.px(from) + 0.3, 1).toFixed(2) });
  for (const [column, row, cell] of map.cells) {
    const [from, to] = map.columns[column];
    const top = chart.py(edge(row + 1));
    add(chart.svg, "rect", { class: "cell", ...seam(from, to), y: top.toFixed(2),
      height: (chart.py(edge(row)) - top + 0.3).toFixed(2), "fill-opacity": (most > 1 ? shade(cell) : 1).toFixed(3) });
  }
  // What was given up has no latency: it stands above all others.
  map.lost.forEach((lost, column) => {
    if (lost > 0) add(chart.svg, "rect", { class: "lost-cell", ...seam(...map.columns[column]), y: chart.box.top - 7, height: 6 });
  });
  const middle = map.columns.map(([from, to]) => (from + to) / 2);
  const lines = [
    { title: "median", stroke: colour(2), values: map.p50 },
    { title: "99th percentile", stroke: colour(1), values: map.p99 },
  ];
  for (const line of lines) curve(chart, middle.map((at, n) => [at, line.values[n]]), { ...line, outlined: true });
  drawMarks(chart, data.marks, data.load_end);
  const list = legend(figure, [...lines, { title: "given up without an answer", stroke: "var(--bad)", box: true }]);
  const scale = html(list, "span", "scale", "1");
  html(scale, "i");
  scale.append(`${count(most)} messages`);
  const byPlace = new Map(map.cells.map(([column, row, cell]) => [`${column},${row}`, cell]));
  hover(chart, unprojectTime(chart), (at, y) => {
    const n = map.columns.findIndex(([from, to]) => at >= from && at <= to);
    if (n < 0) return null;
    const share = (chart.box.bottom - y) / (chart.box.bottom - chart.box.top);
    const row = Math.floor(map.low + share * (map.high + 1 - map.low));
    const [from, to] = map.columns[n];
    const rows = [];
    if (row >= map.low && row <= map.high) {
      rows.push({ stroke: "var(--heat)", text: `${time(edge(row))} to ${time(edge(row + 1))}: ${count(byPlace.get(`${n},${row}`) ?? 0)}` });
    }
    for (const line of lines) {
      if (line.values[n] !== null) rows.push({ stroke: line.stroke, text: `${line.title}: ${time(line.values[n])}` });
    }
    if (map.lost[n] > 0) rows.push({ stroke: "var(--bad)", text: `given up: ${count(map.lost[n])}` });
    return { at: middle[n], title: `${seconds(from)} to ${seconds(to)}`, rows: rows.concat(marksAt(middle[n])) };
  });
}

function throughput(figure) {
  const rate = (values) => values.map((value, n) => value / series.length[n]);
  const lines = [
    { title: "offered", stroke: colour(1), dashed: true, values: rate(series.started) },
    { title: "completed", stroke: colour(0), values: rate(series.completed) },
  ];
  linesOverTime(figure, lines, linearAxis(figure, lines, "exchanges per second"), "Throughput");
}

function losses(figure) {
  const kinds = [
    { title: "lost: no answer in time", stroke: "var(--bad)", box: true, values: series.lost },
    { title: "refused or invalid", stroke: colour(3), box: true, values: series.failed },
  ];
  const high = Math.max(...series.at.map((_, n) => series.lost[n] + series.failed[n]), 1);
  const y = { ticks: linearTicks(high, 4), format: shortCount, label: "per interval" };
  const chart = frame(figure, { x: timeAxis(figure), y, height: 230, title: "Losses" });
  series.at.forEach((at, n) => {
    const from = at - series.length[n];
    bar(chart, from, at, 0, series.lost[n], kinds[0].stroke);
    bar(chart, from, at, series.lost[n], series.lost[n] + series.failed[n], kinds[1].stroke);
  });
  drawMarks(chart, data.marks, data.load_end);
  legend(figure, kinds);
  hover(chart, unprojectTime(chart), (time) => {
    const n = series.at.findIndex((at) => time <= at);
    if (n < 0) return null;
    const middle = series.at[n] - series.length[n] / 2;
    const rows = kinds.map((kind) => ({ stroke: kind.stroke, text: `${kind.title}: ${count(kind.values[n])}` }));
    return { at: middle, title: `${seconds(series.at[n] - series.length[n])} to ${seconds(series.at[n])}`, rows: rows.concat(marksAt(middle)) };
  });
}

function lag(figure) {
  const lines = [
    { title: "99th percentile", stroke: colour(1), values: series.lag_p99 },
    { title: "latest", stroke: colour(9), values: series.lag_max },
  ];
  const measured = lines.flatMap((line) => line.values).filter((value) => value !== null);
  if (measured.length === 0) { html(figure, "p", "", "Not recorded."); return; }
  const high = Math.max(...measured, data.lag_limit_us);
  const y = { ticks: logTicks(Math.min(...measured), high), log: true, format: tickTime, show: time, label: "lag, logarithmic" };
  const chart = linesOverTime(figure, lines, y, "Lag of the generator");
  const at = chart.py(data.lag_limit_us);
  add(chart.svg, "line", { class: "limit", x1: chart.box.left, x2: chart.box.right, y1: at, y2: at });
  const item = html(figure.querySelector(".legend"), "span");
  html(item, "i", "dash").style.borderColor = "var(--bad)";
  item.append(`limit for the run, ${time(data.lag_limit_us)} at the 99th percentile`);
}

function servers(figure) {
  const { step_s: step, servers: list } = data.timeline;
  const most = Math.max(...list.map((server) => server.counts.length), 0);
  const at = Array.from({ length: most }, (_, n) => (n + 0.5) * step);
  const lines = list.map((server, n) => ({
    title: `server ${server.duid}`, stroke: colour([0, 1, 2, 3][n % 4]), values: at.map((_, k) => (server.counts[k] ?? 0) / step),
  }));
  linesOverTime(figure, lines, linearAxis(figure, lines, "REPLY per second"), "Who answered", at);
}

// How many clients of a storm had been served when.
function served(figure) {
  const { clients, points, shares } = data.served;
  if (points.length === 0) { html(figure, "p", "", "Nobody was served."); return; }
  const last = points[points.length - 1];
  const end = last[1] < clients ? Math.max(data.end, last[0]) : last[0];
  const ticks = linearTicks(end, figure.clientWidth < 520 ? 5 : 10).filter((tick) => tick <= end * 1.0001);
  const chart = frame(figure, {
    x: { ticks, low: 0, high: end, format: (tick) => `${tick}`, label: "time (s)" },
    y: { ticks: linearTicks(clients, 5), format: shortCount, label: "clients" },
    title: "Served clients",
  });
  const line = { title: "served", stroke: colour(0) };
  const whole = [[0, 0], ...points];
  if (last[0] < end) whole.push([end, last[1]]);
  curve(chart, whole, line);
  const everybody = { title: `all ${count(clients)} clients`, stroke: "var(--dim)", dashed: true };
  curve(chart, [[0, clients], [end, clients]], everybody);
  // Names that would run into each other stand one below the other.
  const rows = [];
  for (const [name, at] of shares) {
    const x = chart.px(at);
    const text = `${name} ${seconds(at)}`;
    const width = text.length * 6.8;
    const left = x > chart.box.right - width - 8;
    const from = left ? x - 4 - width : x + 4;
    let row = rows.findIndex((end) => from > end + 6);
    if (row < 0) row = rows.length;
    rows[row] = from + width;
    const y = chart.box.bottom - 8 - 15 * row;
    add(chart.svg, "line", { class: "takeover share", x1: x, x2: x, y1: chart.box.top, y2: chart.box.bottom });
    add(chart.svg, "text", { class: "takeover", x: left ? x - 4 : x + 4, y, "text-anchor": left ? "end" : "start" }, text);
  }
  legend(figure, [line, everybody]);
  const unproject = (x) => ((x - chart.box.left) / (chart.box.right - chart.box.left)) * end;
  const ends = whole.map((point) => point[0]);
  hover(chart, unproject, (at) => {
    const [time, now] = whole[nearest(ends, at)];
    const share = (100 * now / Math.max(clients, 1)).toFixed(2);
    return {
      at: time, title: seconds(time), dots: [{ stroke: line.stroke, y: now }],
      rows: [{ stroke: line.stroke, text: `served: ${count(now)} (${share} %)` }],
    };
  });
}

// Latency by rate.
function ramp(figure) {
  const { rate, limit_us: limit, broke_at: broke } = data.ramp;
  const lines = [
    { title: "median", stroke: colour(2), values: data.ramp.p50 },
    { title: "99th percentile", stroke: colour(1), values: data.ramp.p99 },
  ];
  const measured = lines.flatMap((line) => line.values).filter((value) => value !== null);
  if (measured.length === 0) { html(figure, "p", "", "Nothing was measured."); return; }
  if (limit > 0) measured.push(limit);
  const high = Math.max(...rate);
  const y = { ticks: logTicks(Math.min(...measured), Math.max(...measured)), log: true, format: tickTime, label: "latency, logarithmic" };
  const x = { ticks: linearTicks(high, figure.clientWidth < 520 ? 4 : 8), format: shortCount, label: "exchanges per second offered" };
  const chart = frame(figure, { x, y, title: "Latency by rate" });
  for (const line of lines) curve(chart, rate.map((offered, n) => [offered, line.values[n]]), line);
  if (limit > 0) {
    const at = chart.py(limit);
    add(chart.svg, "line", { class: "limit", x1: chart.box.left, x2: chart.box.right, y1: at, y2: at });
  }
  if (broke !== null) {
    const at = chart.px(broke);
    add(chart.svg, "line", { class: "event", x1: at, x2: at, y1: chart.box.top - 4, y2: chart.box.bottom });
    add(chart.svg, "text", { class: "event", x: at, y: chart.box.top - 7, "text-anchor": "middle" }, "broke");
  }
  legend(figure, lines);
  const top = x.ticks[x.ticks.length - 1];
  const unproject = (px) => ((px - chart.box.left) / (chart.box.right - chart.box.left)) * top;
  hover(chart, unproject, (offered) => {
    const n = rate.reduce((best, one, k) => (Math.abs(one - offered) < Math.abs(rate[best] - offered) ? k : best), 0);
    const shown = lines.filter((line) => line.values[n] !== null);
    return {
      at: rate[n], title: `${count(rate[n])} per second`,
      rows: shown.map((line) => ({ stroke: line.stroke, text: `${line.title}: ${time(line.values[n])}` })),
      dots: shown.map((line) => ({ stroke: line.stroke, y: line.values[n] })),
    };
  });
}

const all = { percentiles, heat, throughput, losses, lag, servers, served, ramp };
function draw(figure) {
  all[figure.dataset.chart](figure);
  charts.set(figure, figure.clientWidth);
}

for (const figure of document.querySelectorAll("figure[data-chart]")) draw(figure);
const choice = document.getElementById("pair");
if (choice) {
  data.heat.forEach((map, n) => { html(choice, "option", "", map.title).value = n; });
  choice.addEventListener("change", () => {
    shownHeat = +choice.value;
    draw(document.querySelector("figure[data-chart=heat]"));
  });
}
window.addEventListener("resize", () => {
  for (const [figure, width] of charts) if (figure.clientWidth !== width) draw(figure);
});
document.documentElement.dataset.drawn = charts.size;
