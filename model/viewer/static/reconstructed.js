// What `reconstruct` wrote: faces with their meshes, pictures and parameters.

import { FaceView } from "./face.js";
import { attempt, facts, getJson, make, onArrows, picture, section } from "./page.js";
import { GLTFLoader } from "./three.js";

const MODES = [
  { name: "lit", label: "As in the photo" }, { name: "albedo", label: "Albedo" }, { name: "shaded", label: "Shaded" },
  { name: "wireframe", label: "Wireframe" },
];

export async function show(view, main, summary) {
  summary.textContent = `${view.faces.length} reconstructed face${view.faces.length === 1 ? "" : "s"}`;
  const content = make("div", { className: "content" });
  const names = make("div", { className: "names" });
  names.append(...view.faces.map((name, index) => make("button", { type: "button", onclick: () => choose(index) }, name)));
  main.append(make("aside", {}, names), content);
  const title = make("div", { className: "title" });
  const sides = [make("div"), make("div")];
  const face = new FaceView(MODES);
  let current = 0;
  content.append(title, make("div", { className: "columns" }, ...sides));

  function choose(index) {
    current = index;
    [...names.children].forEach((button, k) => { button.ariaCurrent = String(k === index); });
    return attempt(() => open(index));
  }

  async function open(index) {
    delete content.dataset.sample;
    const found = await getJson(`api/faces/${index}`);
    const at = (ending) => `files/${index}${encodeURIComponent(ending)}`;
    const glbs = found.meshes.filter((ending) => ending.endsWith(".glb"));
    const meshes = Object.fromEntries(await Promise.all(glbs.map(async (ending) => [ending, await load(at(ending))])));
    if (index !== current) return;
    title.textContent = view.faces[index];
    const links = found.meshes.map((ending) => make("a", { href: at(ending), download: fileName(view.faces[index], ending) },
      fileName(view.faces[index], ending)));
    const expression = meshes["_neutral.glb"] ? "" : " `--neutral` writes the face that the expression is scaled from.";
    sides[0].replaceChildren(...(meshes[".glb"] ? [face.node] : []), make("p", { className: "quiet" }, meshes[".glb"]
      ? `GLB is in metres, OBJ and PLY are in millimetres.${expression}` : "No GLB was written, so there is no face in 3D here: `reconstruct --mesh glb` writes it."),
      section("Meshes", make("div", { className: "files" }, ...links)), section("Parameters", facts(found.facts)));
    sides[1].replaceChildren(...found.pictures.map(({ ending, title: text }) => section(text, picture(at(ending), ""))));
    if (meshes[".glb"]) face.show(faceOf(meshes));
    content.dataset.sample = index;
  }

  onArrows((step) => {
    if (view.faces[current + step] !== undefined) choose(current + step);
  });
  await choose(0);
}

const fileName = (face, ending) => face.split("/").at(-1) + ending;

async function load(url) {
  let mesh = null;
  (await new GLTFLoader().loadAsync(url)).scene.traverse((part) => { mesh ??= part.isMesh ? part : null; });
  const { position, uv } = mesh.geometry.attributes;
  return { triangles: mesh.geometry.index.array, place: position.array, uv: uv.array, texture: mesh.material.map };
}

function faceOf(meshes) {
  const { triangles, place, uv, texture } = meshes[".glb"];
  const neutral = meshes["_neutral.glb"]?.place;
  const lit = meshes["_lit.glb"];
  return {
    triangles, average: null, neutral: neutral ?? place, offsets: neutral ? place.map((value, i) => value - neutral[i]) : null,
    textures: { albedo: { texture, uv }, ...(lit && { lit: { texture: lit.texture, uv: lit.uv, lit: true } }) },
  };
}
