// The dashboard: asks, and hands what comes to who draws it.

import { element, setText } from "./dom.js";
import { count, duration } from "./format.js";
import { Holder, Model } from "./model.js";
import { Poller, WrongKey } from "./poller.js";
import { Tables } from "./tables.js";
import { Tiles } from "./tiles.js";

const $ = (id) => document.getElementById(id);
const model = new Model();
const holder = new Holder();
const tiles = new Tiles($("tiles"), $("moment"));
const tables = new Tables();
const address = new URL("nodes.json", document.baseURI);
address.username = address.password = ""; // of an address with the key in it; the browser sends it all the same

async function ask(signal) {
  const response = await fetch(address, { signal, cache: "no-store", redirect: "error" });
  if (response.status === 401) throw new WrongKey("the server has another key now; reload the page");
  if (response.status === 404) throw new WrongKey("the server has no key any more, and so no dashboard");
  if (!response.ok) throw new Error(`the server answers ${response.status}`);
  return response.json();
}

function tell({ state, report, error, retryIn }) {
  if (report) draw(model.update(report));
  const words = {
    live: "live",
    paused: "paused",
    failing: `${reason(error)}; next try in ${duration(retryIn)}`,
    locked: reason(error),
  };
  $("state").dataset.state = state;
  setText($("state"), words[state]);
  document.body.classList.toggle("old", state === "failing" || state === "locked");
}

function reason(error) {
  return error instanceof TypeError ? "the server does not answer" : (error?.message ?? "");
}

function draw(view) {
  const now = performance.now() / 1000;
  tiles.push(now, view.totals);
  tables.draw(view);
  drawProblems(holder.hold(view.problems.map(({ node, what }) => `${node} ${what}`), now));
  const { connections } = view.totals;
  setText($("summary"), `${view.nodes.length} ${view.nodes.length === 1 ? "node" : "nodes"}`);
  document.title = `${count(connections)} ${connections === 1 ? "connection" : "connections"} · trioroom`;
}

// Written only when there are others than before: this is what a screen reader says by itself.
function drawProblems(texts) {
  const list = $("problems");
  if (texts.join("\n") === [...list.children].map((item) => item.textContent).join("\n")) return;
  list.replaceChildren(...texts.map((text) => element("li", "", text)));
}

const poller = new Poller(ask, tell);
const heed = () => (document.hidden ? poller.stop() : poller.start());
document.addEventListener("visibilitychange", heed);
heed();
