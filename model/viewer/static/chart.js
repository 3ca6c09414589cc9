// Curves over steps as SVG; the values of the step under the pointer are in the legend.

import { make } from "./page.js";

const COLOURS = ["#e2a76b", "#6fb1e0", "#8fc97c", "#d880a8", "#b6a1e8", "#d9cf6a", "#62c5bd", "#e07f6f", "#a9b0b8"];
const WIDTH = 480;
const HEIGHT = 260;
const MARGIN = { left: 48, right: 10, top: 8, bottom: 22 };

// series: [{ label, points: [[step, value]] }]; losses are drawn on a logarithmic scale where all are above 0
export function lineChart({ title, series }) {
  const values = series.flatMap(({ points }) => points.map(([, value]) => value));
  const steps = series.flatMap(({ points }) => points.map(([step]) => step));
  const [first, last] = [least(steps), most(steps)];
  const log = title === "losses" && least(values) > 0;
  const [low, high] = [log ? least(values) : Math.min(0, least(values)), most(values)];
  const x = scale(first, last, MARGIN.left, WIDTH - MARGIN.right);
  const ys = scale(log ? Math.log(low) : low, log ? Math.log(high) : high, HEIGHT - MARGIN.bottom, MARGIN.top);
  const y = (value) => ys(log ? Math.log(value) : value);
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
  for (const value of log ? powers(low, high) : round(low, high)) {
    svg.append(draw("line", { class: "grid", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: y(value), y2: y(value) }),
      draw("text", { x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)));
  }
  for (const step of round(first, last)) {
    svg.append(draw("text", { x: x(step), y: HEIGHT - 6, "text-anchor": "middle" }, number(step)));
  }
  series.forEach(({ points }, k) => {
    const stroke = COLOURS[k % COLOURS.length];
    svg.append(draw("polyline", { class: "curve", stroke, points: points.map(([s, v]) => `${x(s)},${y(v)}`).join(" ") }));
    if (points.length < 30) {
      for (const [s, v] of points) svg.append(draw("circle", { cx: x(s), cy: y(v), r: 2.2, fill: stroke }));
    }
  });
  const cursor = draw("line", { class: "cursor", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" });
  svg.append(cursor);
  const heading = make("h2", {}, title);
  const texts = series.map(({ label, points }) => make("span", {}, `${label} ${number(points.at(-1)[1])}`));
  const legend = make("div", { className: "legend" }, ...texts.map((text, k) => {
    const line = make("i");
    line.style.background = COLOURS[k % COLOURS.length];
    return make("span", {}, line, text);
  }));
  const tell = (step) => {
    heading.textContent = step === null ? title : `${title} · step ${step}`;
    series.forEach(({ label, points }, k) => {
      const point = step === null ? points.at(-1) : points.find(([at]) => at === step);
      texts[k].textContent = point ? `${label} ${number(point[1])}` : label;
    });
    cursor.setAttribute("visibility", step === null ? "hidden" : "visible");
    if (step !== null) for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(step));
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * WIDTH;
    tell(steps.reduce((best, step) => (Math.abs(x(step) - at) < Math.abs(x(best) - at) ? step : best)));
  });
  svg.addEventListener("pointerleave", () => tell(null));
  return make("div", { className: "panel" }, heading, svg, legend);
}

function draw(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const least = (values) => values.reduce((a, b) => Math.min(a, b)); // a call takes no more than some ten thousand
const most = (values) => values.reduce((a, b) => Math.max(a, b));

const scale = (low, high, start, stop) => (value) => start + ((value - low) / (high - low || 1)) * (stop - start);

// Up to six round numbers in a range.
function round(low, high) {
  const rough = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= rough);
  const ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) ticks.push(k * step);
  return ticks;
}

// 1, 2 and 5 times the powers of ten in a range; the powers alone where the range is wide.
function powers(low, high) {
  const wide = high / low > 100;
  const ticks = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++) {
    for (const k of wide ? [1] : [1, 2, 5]) if (k * 10 ** e >= low && k * 10 ** e <= high) ticks.push(k * 10 ** e);
  }
  return ticks;
}

const number = (value) => String(Number(value.toPrecision(3)));
