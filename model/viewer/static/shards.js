// Shards: pages of samples, and one of them with its pictures and its face.

import { FaceView, loadTexture } from "./face.js";
import { attempt, facts, get, getBytes, getJson, make, onArrows, picture, section } from "./page.js";

const HIDDEN = 0.16; // brightness of the photo's colour where another part of the face lies before it

export async function show(view, main, summary) {
  summary.textContent = `${view.dataset} · ${view.samples} sample${view.samples === 1 ? "" : "s"}`;
  const content = make("div", { className: "content" });
  const list = new SampleList((index) => attempt(() => open(index)));
  main.append(list.node, content);
  const face = view.mesh && new FaceView([
    { name: "photo", label: "Photo" }, ...view.textures.map(({ name, caption }) => ({ name, label: caption })),
    { name: "shaded", label: "Shaded" }, { name: "wireframe", label: "Wireframe" },
  ]);
  const mesh = view.mesh && meshOf(await getBytes("api/mesh"), view);
  const title = make("div", { className: "title" });
  const sides = [make("div"), make("div")];
  let wanted = 0;

  async function open(index) {
    const turn = ++wanted;
    delete content.dataset.sample;
    const at = `api/samples/${index}`;
    const [sample, shape] = await Promise.all([getJson(at), mesh && getBytes(`${at}/shape`)]);
    const shown = mesh && { ...mesh, ...(await faceOf(shape, view, mesh, at)) };
    if (turn !== wanted) return; // another one was chosen meanwhile
    title.textContent = `${index} · ${sample.source}`;
    const crop = picture(`${at}/photo.jpg`, "photo I_o");
    sides[1].replaceChildren(
      make("div", { className: "beside" }, crop, facts(sample.facts)),
      ...view.rows.map((row) => section(row.title, make("div", { className: "row" },
        ...row.pictures.map(({ name, caption }) => picture(`${at}/${name}.png`, caption))))),
    );
    if (!sides[0].isConnected) place();
    if (shown) face.show(shown);
    history.replaceState(null, "", `#${index}`);
    content.dataset.sample = index;
  }

  function place() {
    const table = make("pre", { hidden: true });
    const whole = make("details", { ontoggle: () => attempt(async () => {
      table.textContent ||= await (await get("api/statistics")).text();
      table.hidden = false;
    }) }, make("summary", {}, "All samples in numbers"), table);
    if (face) {
      const note = `Identity is scaled from the average of ${view.averaged} faces of these shards.`;
      sides[0].append(face.node, make("p", { className: "quiet" }, note));
      content.append(title, make("div", { className: "columns" }, ...sides), whole);
    } else content.append(title, sides[1], whole);
  }

  onArrows((step) => list.step(step));
  if (!view.samples) throw new Error("These shards hold no sample: all photos were rejected.");
  const first = Number.parseInt(location.hash.slice(1), 10);
  await list.load(first < view.samples ? first : null);
}

class SampleList {
  constructor(choose) {
    this.choose = choose;
    this.page = 0;
    this.search = make("input", { type: "search", placeholder: "Search by source", ariaLabel: "Search by source" });
    this.search.oninput = () => { this.page = 0; attempt(() => this.load()); };
    this.count = make("span", { className: "quiet" });
    this.thumbs = make("div", { className: "thumbs" });
    this.back = make("button", { type: "button", ariaLabel: "Page before", onclick: () => this.turn(-1) }, "‹");
    this.forth = make("button", { type: "button", ariaLabel: "Next page", onclick: () => this.turn(1) }, "›");
    const pager = make("div", { className: "pager" }, this.back, this.count, this.forth);
    this.node = make("aside", {}, this.search, this.thumbs, pager);
  }

  turn(step) {
    this.page += step;
    attempt(() => this.load());
  }

  // Show a page; open `index`, or the first of the page where none of it is open.
  async load(index = null) {
    const query = new URLSearchParams({ page: this.page, search: this.search.value });
    const asked = query.toString();
    this.asked = asked;
    const found = await getJson(`api/samples?${query}`);
    if (this.asked !== asked) return;
    this.page = found.page;
    this.count.textContent = found.found ? `${found.found} found · page ${found.page + 1} of ${found.pages}` : "none found";
    this.back.disabled = found.page === 0;
    this.forth.disabled = found.page === found.pages - 1;
    this.shown = found.samples.map((sample) => sample.index);
    this.thumbs.replaceChildren(...found.samples.map(({ index, source }) => {
      const image = make("img", { src: `api/samples/${index}/photo.jpg`, alt: source, loading: "lazy" });
      const button = make("button", { type: "button", title: source, onclick: () => this.open(index) }, image);
      button.dataset.index = index;
      return button;
    }));
    this.mark();
    if (index !== null) this.open(index);
    else if (this.shown.length && !this.shown.includes(this.current)) this.open(this.shown[0]);
  }

  open(index) {
    this.current = index;
    this.mark();
    this.choose(index);
  }

  step(by) {
    const next = this.shown[this.shown.indexOf(this.current) + by];
    if (next !== undefined) this.open(next);
  }

  mark() {
    for (const button of this.thumbs.children) button.ariaCurrent = String(Number(button.dataset.index) === this.current);
  }
}

function meshOf(bytes, { mesh: { vertices, triangles } }) {
  const uv = triangles * 12;
  const average = uv + vertices * 8;
  return {
    triangles: new Uint32Array(bytes, 0, triangles * 3), uv: new Float32Array(bytes, uv, vertices * 2),
    average: new Float32Array(bytes, average, vertices * 3),
  };
}

async function faceOf(bytes, { mesh: { vertices }, textures }, mesh, at) {
  const part = (start, size) => new Float32Array(bytes, start * vertices * 4, size * vertices);
  const [photo, ...maps] = await Promise.all(
    [`${at}/photo.jpg`, ...textures.map(({ name }) => `${at}/${name}.png`)].map(loadTexture),
  );
  const shown = part(8, 1);
  const seen = Float32Array.from({ length: vertices * 3 }, (_, i) => Math.max(HIDDEN, shown[Math.floor(i / 3)]));
  return {
    neutral: part(0, 3), offsets: part(3, 3),
    textures: {
      photo: { texture: photo, uv: part(6, 2), seen, lit: true },
      ...Object.fromEntries(textures.map(({ name }, k) => [name, { texture: maps[k], uv: mesh.uv }])),
    },
  };
}
