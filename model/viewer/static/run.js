// A run: its curves, its sheets of samples, and what it was run with; asked for again while the run goes on.

import { lineChart } from "./chart.js";
import { attempt, facts, getJson, make, section } from "./page.js";

const AGAIN = 2000; // ms

export async function show(view, main, summary) {
  const panels = make("div", { className: "panels" });
  const notes = make("div", { className: "quiet" });
  const image = make("img", { alt: "what the networks make of some samples" });
  const slider = make("input", { type: "range", min: 0, step: 1, ariaLabel: "Sheet" });
  const label = make("span", { className: "quiet" });
  const sheets = section("Samples", make("div", { className: "stack sheet" }, slider, label, image));
  const settings = make("details", { open: false }, make("summary", {}, "Settings"), make("div", { className: "config" }, facts(view.facts)));
  const content = make("div", { className: "content" }, make("div", { className: "stack" }, panels, notes, sheets, settings));
  main.append(content);
  let names = [];
  let last = "";

  slider.oninput = () => {
    const name = names[slider.valueAsNumber];
    label.textContent = name;
    image.src = `files/samples/${encodeURIComponent(name)}`;
  };

  async function load() {
    const log = await getJson("api/log");
    const text = JSON.stringify(log);
    if (text === last) return;
    last = text;
    summary.textContent = `run · step ${log.step}`;
    panels.replaceChildren(...log.panels.filter(({ series }) => series.length).map(lineChart));
    notes.replaceChildren(...log.notes.map((note) => make("p", {}, note)));
    const followed = slider.valueAsNumber === names.length - 1 || !names.length; // of the newest sheet
    names = log.sheets;
    sheets.hidden = !names.length;
    slider.max = names.length - 1;
    slider.hidden = names.length < 2;
    if (names.length && followed) {
      slider.value = names.length - 1;
      slider.oninput();
    }
    content.dataset.step = log.step;
  }

  await load();
  setInterval(() => document.hidden || attempt(load), AGAIN);
}
