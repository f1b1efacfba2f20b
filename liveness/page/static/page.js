"use strict";
// The server makes the page; here the same part of it is taken over as it comes, and in between the leases run down.
(() => {
  const part = document.getElementById("part");
  const live = document.getElementById("live");
  const hold = document.getElementById("hold");
  let heldBack = null, held = false, at = performance.now(), last = null, source = null;

  const say = (text) => { if (live.textContent !== text) live.textContent = text; };

  const attributes = (old, now) => {
    for (const { name } of [...old.attributes]) if (!now.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of now.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  };

  const blank = (node) => node.nodeType === Node.TEXT_NODE && node.nodeValue.trim() === "";

  // What stays is changed and not replaced, so that a selection stays as well.
  const take = (old, now) => {
    const keyed = new Map();
    for (const child of old.children) if (child.dataset.key !== undefined) keyed.set(child.dataset.key, child);
    let place = old.firstChild;
    for (const child of [...now.childNodes]) {
      const key = child.nodeType === Node.ELEMENT_NODE ? child.dataset.key : undefined;
      while (place && blank(place) && child.nodeType === Node.ELEMENT_NODE) {
        const gone = place;
        place = place.nextSibling;
        gone.remove();
      }
      let own = key === undefined ? place : keyed.get(key);
      if (key !== undefined) keyed.delete(key);
      if (!own || own.nodeName !== child.nodeName || (key === undefined && own.dataset?.key !== undefined)) {
        old.insertBefore(child, place);
        continue;
      }
      if (own === place) place = place.nextSibling; else old.insertBefore(own, place);
      if (child.nodeType === Node.ELEMENT_NODE) { attributes(own, child); take(own, child); }
      else if (own.nodeValue !== child.nodeValue) own.nodeValue = child.nodeValue;
    }
    while (place) { const gone = place; place = place.nextSibling; gone.remove(); }
  };

  const show = (html) => {
    const made = document.createElement("template");
    made.innerHTML = html;
    const focused = document.activeElement;
    take(part, made.content);
    // A row that has another place has lost it.
    if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    at = performance.now();
  };

  const listen = () => {
    source = new EventSource("/events" + location.search);
    source.onmessage = (event) => {
      last = new Date();
      if (held) { heldBack = event.data; return; }
      show(event.data);
      say("live");
    };
    // It ends after a minute, and goes on as another one.
    source.addEventListener("again", () => { source.close(); listen(); });
    source.onerror = () => {
      const since = last === null ? "" : " since " + last.toISOString().slice(11, 19) + " UTC";
      say("not live: no answer" + since);
      document.body.classList.add("stale");
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
    };
    source.onopen = () => document.body.classList.remove("stale");
  };

  const down = () => {
    if (held || document.body.classList.contains("stale")) return;
    const table = part.querySelector("table.workers");
    if (table === null || table.dataset.runs !== "yes") return;
    const since = (performance.now() - at) / 1000;
    for (const bar of table.querySelectorAll("progress")) {
      const left = Math.max(bar.dataset.left - since, 0);
      bar.value = left;
      bar.parentElement.querySelector(".left > span").textContent = left.toFixed(1);
    }
  };

  hold.hidden = false;
  hold.addEventListener("click", () => {
    held = !held;
    hold.setAttribute("aria-pressed", String(held));
    hold.textContent = held ? "Go on" : "Hold";
    say(held ? "held, as it was at " + new Date().toISOString().slice(11, 19) + " UTC" : "live");
    if (!held && heldBack !== null) { show(heldBack); heldBack = null; }
  });
  listen();
  setInterval(down, 200);
})();
