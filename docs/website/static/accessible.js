"use strict";
// What MkDocs Material leaves out: a name for the search dialog, and tables that a keyboard can scroll.
(() => {
  document.querySelector(".md-search").setAttribute("aria-label", "Search");

  function makeFocusable() {
    for (const box of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }

  // Material puts the tables into boxes after the page has loaded.
  new MutationObserver(makeFocusable).observe(document.querySelector(".md-content"), { childList: true, subtree: true });
  addEventListener("resize", makeFocusable);
  makeFocusable();
})();
