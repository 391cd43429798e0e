// A list that asks for itself again stays where it was scrolled to.
"use strict";
(() => {
  const regions = () => [...document.querySelectorAll("#list .scroll")].map((region) => [region.ariaLabel, region]);
  let before = new Map();

  document.addEventListener("htmx:beforeSwap", () => {
    before = new Map(regions().map(([name, region]) => [name, region.scrollLeft]));
  });
  document.addEventListener("htmx:afterSwap", () => {
    for (const [name, region] of regions()) region.scrollLeft = before.get(name) ?? 0;
  });
})();
