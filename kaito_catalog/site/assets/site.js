// What the theme leaves out for readers without a mouse or a screen.
"use strict";

document.querySelector(".md-search")?.setAttribute("aria-label", "Search");

// The theme adds its own elements when it comes to them, and takes wide code out of the order of the Tab key.
function mend() {
  for (const code of document.querySelectorAll("pre > code")) {
    if (code.tabIndex !== 0) code.tabIndex = 0;
  }
  for (const wide of document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])")) {
    wide.tabIndex = 0;
    wide.setAttribute("role", "group");
    wide.setAttribute("aria-label", "Table");
  }
  // A button to copy code is not a landmark.
  for (const nav of document.querySelectorAll(".md-code__nav:not([role])")) nav.setAttribute("role", "none");
}

new MutationObserver(mend).observe(document.body, {
  attributes: true, attributeFilter: ["tabindex"], childList: true, subtree: true,
});
mend();
