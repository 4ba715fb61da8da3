// What the theme leaves out for readers without a mouse or a screen.
"use strict";

document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
for (const code of document.querySelectorAll("pre > code")) {
  // Wide code scrolls, so that keys must reach it; the theme takes the place in the order away again.
  const reach = () => {
    if (code.tabIndex !== 0) code.tabIndex = 0;
  };
  new MutationObserver(reach).observe(code, { attributes: true, attributeFilter: ["tabindex"] });
  reach();
}
