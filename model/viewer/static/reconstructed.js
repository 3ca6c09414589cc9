// What `reconstruct` wrote: faces with their meshes, pictures and parameters.

import { FaceView } from "./face.js";
import { attempt, facts, getBytes, getJson, make, onArrows, picture, section } from "./page.js";
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
  let average = null;
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
    const glbs = found.files.filter((ending) => ending.endsWith(".glb"));
    const meshes = Object.fromEntries(await Promise.all(glbs.map(async (ending) => [ending, await load(at(ending))])));
    if (found.has_average && meshes["_neutral.glb"]) average ??= new Float32Array(await getBytes("api/average"));
    if (index !== current) return;
    title.textContent = view.faces[index];
    const links = found.files.map((ending) => make("a", { href: at(ending), download: fileName(view.faces[index], ending) },
      fileName(view.faces[index], ending)));
    sides[0].replaceChildren(...(meshes[".glb"] ? [face.node] : []), make("p", { className: "quiet" }, note(meshes, found)),
      section("Parameters", facts(found.facts)),
      section("Files: GLB in metres, OBJ and PLY in millimetres", make("div", { className: "files" }, ...links)));
    sides[1].replaceChildren(...found.rows.map((row) => section(row.title, make("div", {
      className: row.pictures.length > 1 ? "row" : "",
    }, ...row.pictures.map(({ url, caption }) => picture(url, caption))))));
    if (meshes[".glb"]) face.show(faceOf(meshes, found.has_average ? average : null));
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

function note(meshes, found) {
  if (!meshes[".glb"]) return "No GLB was written, so there is no face in 3D here: `reconstruct --mesh glb` writes it.";
  if (!meshes["_neutral.glb"]) return "`reconstruct --neutral` writes the face that identity and expression are scaled from.";
  if (!found.has_average) return `Identity is scaled from the mean of the face model: give \`--face-model\` the file of ${found.face_model}.`;
  return "Identity is scaled from the mean of the face model.";
}

function faceOf(meshes, average) {
  const { triangles, place, uv, texture } = meshes[".glb"];
  const neutral = meshes["_neutral.glb"]?.place;
  const lit = meshes["_lit.glb"];
  return {
    triangles, average: neutral ? average : null, neutral: neutral ?? place,
    offsets: neutral ? place.map((value, i) => value - neutral[i]) : null,
    textures: { albedo: { texture, uv }, ...(lit && { lit: { texture: lit.texture, uv: lit.uv, lit: true } }) },
  };
}
