import { attempt, getJson } from "./page.js";

attempt(async () => {
  const view = await getJson("api/view");
  document.title = `${view.name} · dualface`;
  document.getElementById("name").textContent = view.name;
  const page = await import(`./${view.kind}.js`);
  await page.show(view, document.querySelector("main"), document.getElementById("summary"));
});
