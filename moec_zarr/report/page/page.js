"use strict";
for (const box of document.querySelectorAll("[data-slices]")) {
  const selects = [...box.querySelectorAll("select")];
  const views = [...box.querySelectorAll("[data-key]")];
  const said = box.querySelector("[role=status]");
  const show = () => {
    const key = selects.map((select) => select.value).join(",");
    for (const view of views) {
      view.hidden = view.dataset.key !== key;
      if (!view.hidden && said) said.textContent = view.dataset.said;
    }
  };
  for (const select of selects) select.addEventListener("change", show);
  // A browser may keep a choice when a page is loaded again.
  show();
}
