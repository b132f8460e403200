// Puts in place what changed, and nothing else: the page is whole without this script. Nodes are kept where they can be,
// so that focus, selection and scroll position stay.
"use strict";
(() => {
  const page = document.body.dataset.watches;
  const note = document.getElementById("live");
  if (!page || !note || !window.EventSource) return;

  const say = (text, lost) => {
    note.hidden = false;
    note.classList.toggle("lost", lost);
    if (note.textContent !== text) note.textContent = text;
  };

  const syncAttributes = (now, next) => {
    for (const { name } of [...now.attributes]) {
      // Whether details are open is the reader's choice.
      if (!next.hasAttribute(name) && !(name === "open" && now.nodeName === "DETAILS")) now.removeAttribute(name);
    }
    for (const { name, value } of next.attributes) {
      if (now.getAttribute(name) !== value) now.setAttribute(name, value);
    }
  };

  const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.dataset?.key ?? "") === (b.dataset?.key ?? "");

  const sync = (now, next) => {
    if (now.nodeType !== Node.ELEMENT_NODE) {
      if (now.data !== next.data) now.data = next.data;
      return;
    }
    syncAttributes(now, next);
    let child = now.firstChild;
    for (const wanted of [...next.childNodes]) {
      let match = child;
      // What has a key may have moved.
      while (match && !alike(match, wanted)) match = match.nextSibling;
      if (match && wanted.dataset?.key === undefined && match !== child) match = null;
      if (!match) {
        now.insertBefore(wanted.cloneNode(true), child);
        continue;
      }
      if (match !== child) now.insertBefore(match, child);
      else child = child.nextSibling;
      sync(match, wanted);
    }
    while (child) {
      const rest = child.nextSibling;
      child.remove();
      child = rest;
    }
  };

  const put = (id, html) => {
    const now = document.getElementById(id);
    if (!now) return;
    const holder = document.createElement("template");
    holder.innerHTML = html;
    const next = holder.content.firstElementChild;
    if (!next) return;
    // What the reader is at stays where it is on the screen, whatever comes or goes above it.
    const held = document.activeElement === document.body ? null : document.activeElement;
    const top = held?.getBoundingClientRect().top;
    sync(now, next);
    const moved = held ? held.getBoundingClientRect().top - top : 0;
    if (moved && top >= 0 && top < innerHeight) scrollBy({ top: moved, behavior: "instant" });
  };

  let source = null;
  const follow = () => {
    source = new EventSource("/ui/events?page=" + encodeURIComponent(page));
    source.addEventListener("open", () => say("Live", false));
    source.addEventListener("fragment", (event) => {
      const { id, html } = JSON.parse(event.data);
      put(id, html);
    });
    source.addEventListener("end", (event) => {
      source.close();
      document.removeEventListener("visibilitychange", look);
      say(event.data, true);
    });
    source.addEventListener("error", () => {
      const over = source.readyState === EventSource.CLOSED;
      say(over ? "No longer live: load the page again." : "Not live: the connection was lost, trying again\u2026", true);
    });
  };
  // A browser has few connections to one host, so a page that nobody sees lets go of its own.
  const look = () => {
    source?.close();
    if (document.hidden) say("Waits until you look", false);
    else follow();
  };
  document.addEventListener("visibilitychange", look);
  follow();
})();
