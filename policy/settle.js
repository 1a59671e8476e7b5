"use strict";
// Runs before observe.js in the same isolated world: stills the caret in every document, notes when the page (the top
// document) last changed, and tells when it has come to rest.
(() => {
  // One that blinks would make two pictures of one page (Chromium from 140; others go on blinking).
  const still = new CSSStyleSheet();
  still.replaceSync(":root { caret-animation: manual }");
  document.adoptedStyleSheets.push(still);

  if (window !== window.top || Object.hasOwn(window, "pae")) return;  // `window.pae` may be an element of that id

  const SHORT_ANIMATION_MS = 1000;  // longer ones, and endless ones, are decoration
  let changedAt = performance.now();

  const touch = () => { changedAt = performance.now(); };
  const mutations = new MutationObserver(touch);
  const watched = new WeakSet();
  // Changes in shadow roots and frames count too, once they have been come across.
  const watch = (root) => {
    if (watched.has(root)) return;
    watched.add(root);
    mutations.observe(root, { subtree: true, childList: true, attributes: true, characterData: true });
  };
  watch(document);
  new PerformanceObserver(touch).observe({ type: "layout-shift" });

  const inView = (element) => {
    const { left, top, right, bottom } = element.getBoundingClientRect();
    return right > 0 && bottom > 0 && left < innerWidth && top < innerHeight;
  };
  const loading = () => {
    if (document.readyState === "loading" || !document.documentElement) return true;
    for (const image of document.images) {
      if (!image.complete && image.loading !== "lazy" && inView(image)) return true;
    }
    return document.fonts.status === "loading" || document.getAnimations().some((animation) =>
      animation.playState === "running" && animation.effect?.getComputedTiming().endTime < SHORT_ANIMATION_MS);
  };

  // Resolves once nothing has changed for quietMs (true) or limitMs are over (false). `afresh`: counted from now, since
  // what an action sets going (a submitted form) may begin only after it was acknowledged.
  const quiet = (quietMs, limitMs, afresh) => new Promise((resolve) => {
    if (afresh) touch();
    const end = performance.now() + limitMs;
    const look = () => {
      const now = performance.now();
      const left = changedAt + quietMs - now;
      if (left <= 0 && !loading()) return resolve(true);
      if (now >= end) return resolve(false);
      setTimeout(look, Math.min(Math.max(left, 8), 50, end - now + 1));
    };
    look();
  });

  // Resolves at the page's next change, or when limitMs are over.
  const change = (limitMs) => new Promise((resolve) => {
    const start = changedAt, end = performance.now() + limitMs;
    const look = () => (changedAt !== start || performance.now() >= end ? resolve(null) : setTimeout(look, 20));
    look();
  });

  globalThis.pae = { touch, watch, quiet, change };
})();
