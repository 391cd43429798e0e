// A blinded test: the keys R and S answer while the focus is in the test, where it is put after each picture.
"use strict";
(() => {
  const KEYS = { r: "say-real", s: "say-synthetic" };
  const focus = () => document.getElementById("test")?.focus(); // and into view
  const isShown = () => {
    const image = document.getElementById("blind");
    return image?.complete && image.naturalWidth > 0; // one that failed is complete, too
  };
  document.addEventListener("keydown", (event) => {
    const id = KEYS[event.key.toLowerCase()];
    const inside = document.activeElement?.closest("#test");
    if (!id || !inside || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    document.getElementById(id)?.click();
  });
  const judge = (event) => {
    if (event.target.closest("#say-real, #say-synthetic") && !isShown()) event.preventDefault();
  };
  document.addEventListener("click", judge, true); // nobody judges a picture that is not there
  document.addEventListener("htmx:afterSettle", focus);
  focus();
})();
