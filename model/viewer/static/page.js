// What every page is made of. Texts come from datasets, so they only ever become text, never markup.

export function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export async function get(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

export const getJson = async (url) => (await get(url)).json();

export const getBytes = async (url) => (await get(url)).arrayBuffer();

export function facts(pairs) {
  return make("dl", {}, ...pairs.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
}

export function picture(url, caption) {
  return make("figure", {}, make("img", { src: url, alt: caption }), make("figcaption", {}, caption));
}

export function section(title, ...children) {
  return make("section", {}, make("h2", {}, title), ...children);
}

// Run what a user asked for; what goes wrong is told on the page until the next time.
export async function attempt(work) {
  const place = document.getElementById("error");
  try {
    await work();
    place.hidden = true;
  } catch (error) {
    place.textContent = error.message;
    place.hidden = false;
  }
}

export function onArrows(step) {
  addEventListener("keydown", (event) => {
    if (event.target.tagName === "INPUT") return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
}
