// A face in 3D: average + identity · (neutral − average) + expression · offsets, drawn by three.js.

import {
  BufferAttribute, BufferGeometry, Color, DirectionalLight, HemisphereLight, LinearFilter, Mesh, MeshBasicMaterial,
  MeshStandardMaterial, PerspectiveCamera, Scene, SRGBColorSpace, TextureLoader, Vector3, WebGLRenderer, OrbitControls,
} from "./three.js";
import { make } from "./page.js";

const CLAY = 0xcdc6bf;
const BACKGROUND = 0x101214;
const ROOM = 1.08; // about the average face, for larger ones
const SLIDERS = [
  { name: "identity", label: "Identity", min: 0, max: 2, title: "0 is the average face, 1 this person" },
  { name: "expression", label: "Expression", min: -1, max: 2, title: "0 is neutral, 1 as in the photo, -1 its opposite" },
];

export class FaceView {
  // modes: [{ name, label }] of the surfaces; "shaded" and "wireframe" need no texture
  constructor(modes) {
    this.canvas = make("canvas", { title: "Drag to turn, scroll to come closer, right button to move" });
    this.weights = { identity: 1, expression: 1 };
    this.mode = modes[0].name;
    this.node = make("div", { className: "face" }, this.canvas, this.#controls(modes));
    this.renderer = new WebGLRenderer({ canvas: this.canvas, antialias: true });
    this.renderer.setPixelRatio(devicePixelRatio);
    this.scene = new Scene();
    this.scene.background = new Color(BACKGROUND);
    this.camera = new PerspectiveCamera(24, 1, 1, 10000);
    const light = new DirectionalLight(0xffffff, 2.2);
    light.position.set(-0.5, 0.7, 1);
    this.camera.add(light); // the light stays with who looks
    this.scene.add(this.camera, new HemisphereLight(0xffffff, 0x55504a, 1.1));
    this.orbit = new OrbitControls(this.camera, this.canvas);
    this.orbit.addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.#resize()).observe(this.canvas);
  }

  // face: triangles, average (null: identity is as it is), neutral, offsets (null: no expression to scale),
  // textures: { mode: { texture, uv, seen } }
  show(face) {
    for (const kept of [this.geometry, ...Object.values(this.face?.textures ?? {}).map((t) => t.texture)]) kept?.dispose();
    this.face = face;
    this.geometry = new BufferGeometry();
    this.geometry.setIndex(new BufferAttribute(face.triangles, 1));
    this.geometry.setAttribute("position", new BufferAttribute(new Float32Array(face.neutral.length), 3));
    for (const [name, there] of [["identity", face.average], ["expression", face.offsets]]) {
      this.sliders[name].row.classList.toggle("off", !there);
      this.sliders[name].input.disabled = !there;
    }
    for (const [name, button] of Object.entries(this.buttons)) {
      button.disabled = !["shaded", "wireframe"].includes(name) && !face.textures[name];
    }
    this.#morph();
    if (!this.framed) this.frame();
    this.#dress();
  }

  // Look at the whole face from the front, at all faces with one average alike.
  frame() {
    const whole = new BufferGeometry();
    whole.setAttribute("position", new BufferAttribute(this.face.average ?? this.face.neutral, 3));
    whole.computeBoundingSphere();
    const { center, radius } = whole.boundingSphere;
    this.orbit.target.copy(center);
    this.camera.position.copy(center).add(new Vector3(0, 0, (ROOM * radius) / Math.sin((this.camera.fov * Math.PI) / 360)));
    this.camera.near = radius / 100;
    this.camera.far = radius * 100;
    this.camera.updateProjectionMatrix();
    this.orbit.update();
    this.framed = true;
  }

  draw() {
    if (this.face) this.renderer.render(this.scene, this.camera);
  }

  setWeight(name, value) {
    this.weights[name] = value;
    this.sliders[name].input.value = value;
    this.sliders[name].output.textContent = value.toFixed(2);
    this.#morph();
    this.draw();
  }

  #morph() {
    const { average, neutral, offsets } = this.face;
    const { identity, expression } = this.weights;
    const place = this.geometry.attributes.position;
    for (let i = 0; i < neutral.length; i++) {
      const person = average ? average[i] + identity * (neutral[i] - average[i]) : neutral[i];
      place.array[i] = person + (offsets ? expression * offsets[i] : 0);
    }
    place.needsUpdate = true;
    this.geometry.computeVertexNormals();
  }

  #dress() {
    const surface = this.face.textures[this.mode];
    const mode = surface || this.mode === "wireframe" ? this.mode : "shaded";
    for (const [name, button] of Object.entries(this.buttons)) button.ariaPressed = String(name === mode);
    for (const mesh of this.meshes ?? []) {
      this.scene.remove(mesh);
      mesh.material.dispose();
    }
    this.geometry.deleteAttribute("color");
    if (surface) {
      this.geometry.setAttribute("uv", new BufferAttribute(surface.uv, 2));
      if (surface.seen) this.geometry.setAttribute("color", new BufferAttribute(surface.seen, 3));
    }
    this.meshes = materials(mode, surface).map((material) => new Mesh(this.geometry, material));
    this.scene.add(...this.meshes);
    this.draw();
  }

  #resize() {
    const { clientWidth, clientHeight } = this.canvas;
    if (!clientWidth) return;
    this.renderer.setSize(clientWidth, clientHeight, false);
    this.camera.aspect = clientWidth / clientHeight;
    this.camera.updateProjectionMatrix();
    this.draw();
  }

  #controls(modes) {
    this.buttons = {};
    for (const { name, label } of modes) {
      this.buttons[name] = make("button", { type: "button", ariaPressed: "false", onclick: () => {
        this.mode = name;
        this.#dress();
      } }, label);
      this.buttons[name].dataset.mode = name;
    }
    const reset = make("button", { type: "button", className: "reset", onclick: () => {
      for (const { name } of SLIDERS) this.setWeight(name, 1);
      this.frame();
      this.draw();
    } }, "Reset");
    this.sliders = {};
    for (const { name, label, min, max, title } of SLIDERS) {
      const input = make("input", { type: "range", id: name, min, max, step: 0.05, value: 1, title });
      const output = make("output", {}, "1.00");
      input.oninput = () => this.setWeight(name, input.valueAsNumber);
      const row = make("div", { className: "slider" }, make("label", { htmlFor: name, title }, label), input, output);
      this.sliders[name] = { input, output, row };
    }
    return make("div", { className: "controls" },
      make("div", { className: "modes" }, ...Object.values(this.buttons), reset),
      ...Object.values(this.sliders).map(({ row }) => row));
  }
}

function materials(mode, surface) {
  if (mode === "wireframe") {
    const lines = new MeshBasicMaterial({ color: 0xe2a76b, wireframe: true, transparent: true, opacity: 0.45 });
    return [new MeshBasicMaterial({ color: BACKGROUND, polygonOffset: true, polygonOffsetFactor: 1, polygonOffsetUnits: 1 }), lines];
  }
  if (!surface) return [new MeshStandardMaterial({ color: CLAY, roughness: 0.75 })];
  if (surface.lit) return [new MeshBasicMaterial({ map: surface.texture, vertexColors: Boolean(surface.seen) })];
  return [new MeshStandardMaterial({ map: surface.texture, roughness: 0.8 })];
}

export async function loadTexture(url) {
  const texture = await new TextureLoader().loadAsync(url);
  texture.colorSpace = SRGBColorSpace;
  texture.generateMipmaps = false;
  texture.minFilter = LinearFilter;
  return texture;
}
