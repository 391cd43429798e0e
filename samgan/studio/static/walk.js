// A walk between two seeds: the slider shows one picture of the strip large.
"use strict";
(() => {
  function prepare() {
    const slider = document.getElementById("walk-at");
    if (!slider || slider.dataset.ready) return;
    const strip = document.querySelectorAll("#walk img");
    const large = document.querySelector("#walk-shown img");
    const words = document.getElementById("walk-words");
    const nearest = document.getElementById("walk-nearest");
    const show = () => {
      const chosen = strip[slider.valueAsNumber];
      large.src = chosen.src; // it is there already, so nothing is empty meanwhile
      large.alt = chosen.alt;
      words.textContent = chosen.alt;
      nearest.href = chosen.dataset.nearest;
      slider.setAttribute("aria-valuetext", chosen.alt);
      strip.forEach((image) => image.classList.toggle("chosen", image === chosen));
    };
    slider.dataset.ready = "1";
    slider.addEventListener("input", show);
    for (const id of ["walk-shown", "walk-label"]) document.getElementById(id).hidden = false;
    show();
  }
  document.addEventListener("htmx:afterSettle", prepare);
  prepare();
})();
