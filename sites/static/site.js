"use strict";
// Everything works without this file: it opens in place what is otherwise a page of its own, and hints early.

// <a href="/care" data-dialog="care"> opens <dialog id="care"> instead of following the link.
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-dialog]");
  const dialog = link && document.getElementById(link.dataset.dialog);
  if (dialog) {
    event.preventDefault();
    dialog.showModal();
  }
  for (const menu of document.querySelectorAll("details.drop[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

// A required field that is left empty, or an e-mail address without its @, is marked as soon as it is left.
document.addEventListener("focusout", (event) => {
  const field = event.target;
  if (field.matches("input, textarea")) field.setAttribute("aria-invalid", String(!field.checkValidity()));
});
