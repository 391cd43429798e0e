// A blinded test: the keys R and S answer while the focus is in the test, where it is put after each picture.
"use strict";
(() => {
  const KEYS = { r: "say-real", s: "say-synthetic" };
  const focus = () => document.getElementById("test")?.focus(); // and into view
  document.addEventListener("keydown", (event) => {
    const id = KEYS[event.key.toLowerCase()];
    const inside = document.activeElement?.closest("#test");
    if (!id || !inside || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const image = document.getElementById("blind");
    if (image?.complete) document.getElementById(id)?.click(); // nobody judges a picture that is not there yet
  });
  document.addEventListener("htmx:afterSettle", focus);
  focus();
})();
