"use strict";
// Runs after observe.js where a person acts. What the person does is held back from the page and told as one deed of
// the agent's kind; our own hands then do it, as they would for the agent. Frames of other origins are out of reach.
(() => {
  if (window !== window.top || !pae.collect || pae.demonstrated) return;

  const LONG_PRESS_MS = 1000;  // a button or key that is down for longer has been let go of elsewhere

  // What becomes of what the person does: "held": it is told; "ours": our hands are at work, and nothing is told from
  // theirs; "dropped": nobody listens.
  let mode = "dropped";
  let tell = null, pressedAt = -Infinity;
  const deeds = [];
  let draft = null;  // a field that is being changed: {element, before}

  const UNTYPED = new Set(["checkbox", "radio", "file", "submit", "button", "reset", "image", "hidden"]);
  const TYPED = new Set(["text", "search", "email", "url", "tel", "password", "number"]);
  const isField = (element) => element.matches?.("textarea,select") || Boolean(element.isContentEditable)
    || (element.tagName === "INPUT" && !UNTYPED.has(element.type));
  const isTyped = (element) => element.tagName === "TEXTAREA" || element.isContentEditable
    || (element.tagName === "INPUT" && TYPED.has(element.type));
  const valueOf = (element) => {
    if (element.tagName === "SELECT") return element.selectedOptions[0]?.label || "";
    return element.isContentEditable ? element.innerText : element.value;
  };
  const state = (element) => {
    if (element.tagName === "SELECT") return [...element.options].map((option) => option.selected);
    return element.isContentEditable ? element.innerHTML : element.value;
  };
  const putBack = (element, before) => {
    if (element.tagName === "SELECT") [...element.options].forEach((option, n) => { option.selected = before[n]; });
    else if (element.isContentEditable) element.innerHTML = before;
    else element.value = before;
  };

  const onTop = (view, x, y) => {
    for (; view && view !== window; view = view.parent) {
      const frame = view.frameElement, box = frame.getBoundingClientRect();
      x += box.left + frame.clientLeft;
      y += box.top + frame.clientTop;
    }
    return [Math.round(x), Math.round(y)];
  };
  const place = (event) => onTop(event.view, event.clientX, event.clientY);
  const middle = (element) => {
    const box = element.getBoundingClientRect();
    return onTop(element.ownerDocument.defaultView, box.left + box.width / 2, box.top + box.height / 2);
  };

  // Hands the next deed to whoever waits, once the button or key is let go of. Marks are the latest observation's.
  const deliver = () => {
    if (!tell || !deeds.length || performance.now() - pressedAt < LONG_PRESS_MS) return;
    const { kind, element, text, point } = deeds.shift();
    mode = "dropped";
    tell({ kind, mark: element ? pae.markOf(element) : 0, text, point });
    tell = null;
  };
  const note = (kind, element, text, point) => {
    deeds.push({ kind, element, text, point });
    deliver();
  };
  const letGo = () => {
    pressedAt = -Infinity;
    setTimeout(deliver, 0);  // the click of this press comes first
  };
  // A change that is done: the page hears of it from our hands.
  const commit = () => {
    if (!draft) return;
    const { element, before } = draft, text = valueOf(element);
    draft = null;
    if (JSON.stringify(state(element)) === JSON.stringify(before)) return;
    putBack(element, before);
    note(element.tagName === "SELECT" ? "select" : "type", element, text.replace(/\s+/g, " ").trim(), middle(element));
  };
  const begin = (element) => {
    if (draft?.element === element) return;
    commit();
    draft = { element, before: state(element) };
  };

  const keyName = (event) => [event.ctrlKey && "Control", event.altKey && "Alt", event.metaKey && "Meta",
    event.shiftKey && event.key.length > 1 && "Shift", event.key === " " ? "Space" : event.key].filter(Boolean).join("+");
  const MODIFIERS = new Set(["Control", "Alt", "Meta", "Shift", "AltGraph", "CapsLock", "Dead"]);

  const onPointer = (event, element, field) => {
    if (field) {  // the caret is put there, or the list unfolds; the page hears nothing of it
      if (event.type === "pointerdown") begin(field);
      return false;
    }
    if (event.type === "pointerdown") commit();
    if (event.type === "click") note("click", element, "", place(event));
    return true;
  };
  const onKey = (event, element, field) => {
    if (!field) {
      if (event.type === "keydown" && !MODIFIERS.has(event.key)) note("press", null, keyName(event), [0, 0]);
      return true;
    }
    if (event.type !== "keydown" || event.key !== "Enter" || field.tagName === "TEXTAREA" || field.isContentEditable) {
      if (event.type === "keydown") begin(field);
      return false;
    }
    commit();
    return true;
  };
  const onWheel = (event, element) => {
    const across = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    const direction = across ? (event.deltaX > 0 ? "right" : "left") : event.deltaY > 0 ? "down" : "up";
    if (deeds.length) return true;
    const scroller = document.scrollingElement;
    const isWindow = across ? scroller.scrollWidth > innerWidth + 1 : scroller.scrollHeight > innerHeight + 1;
    note("scroll", isWindow ? null : element, direction, place(event));
    return true;
  };

  const hear = (event) => {
    if (!event.isTrusted || (mode === "ours" && event.type !== "wheel")) return;  // our hands turn no wheel
    if (event.type === "pointerdown" || event.type === "keydown") pressedAt = performance.now();
    if (event.type === "pointerup" || event.type === "keyup") letGo();
    const element = event.composedPath()[0], type = event.type;
    const field = pae.own(element).nodeType === Node.ELEMENT_NODE
      ? pae.own(element).closest("textarea,select,input,[contenteditable=''],[contenteditable=true]") : null;
    const own = field && isField(field) ? field : null;
    let blocked = true;
    if (mode === "held") {
      if (type === "focusout") blocked = false, draft?.element === own && commit();
      else if (type === "beforeinput") own && begin(own), blocked = false;
      else if (type === "input") blocked = false;
      else if (type === "change") blocked = false, own && !isTyped(own) && commit();
      else if (type === "wheel") blocked = onWheel(event, element);
      else if (type.startsWith("key")) blocked = onKey(event, element, own);
      else blocked = onPointer(event, element, own);
    }
    if (type === "focusout") return;
    event.stopImmediatePropagation();
    if (blocked) event.preventDefault();
  };

  const HEARD = ["pointerdown", "mousedown", "pointerup", "mouseup", "click", "dblclick", "auxclick", "contextmenu",
    "touchstart", "touchend", "dragstart", "keydown", "keypress", "keyup", "beforeinput", "input", "change", "focusout",
    "wheel"];
  const heard = new WeakSet();
  const hearAll = (view) => {
    if (!heard.has(view.document)) {
      heard.add(view.document);
      for (const type of HEARD) view.addEventListener(type, hear, { capture: true, passive: false });
    }
    for (const frame of view.document.querySelectorAll("iframe")) {
      let inside = null;
      try { inside = frame.contentDocument?.defaultView; } catch { /* of another origin */ }
      if (inside) hearAll(inside);
    }
  };
  hearAll(window);

  const { quiet, collect } = pae;
  // Once our hands are done, the page is waited for and looked at; until somebody waits for a deed, none is heard.
  Object.assign(pae, {
    quiet: (...given) => { mode = "dropped"; return quiet(...given); },
    collect: (...given) => { mode = "dropped"; hearAll(window); return collect(...given); },
    // Resolves to the person's next deed, or null when limitMs are over. `isLast`: a change under way is then done.
    demonstrated: (limitMs, isLast) => new Promise((resolve) => {
      mode = "held";
      tell = resolve;
      if (draft && draft.element.ownerDocument.activeElement !== draft.element) draft.element.focus();
      if (isLast) commit();
      setTimeout(() => { if (tell === resolve) { tell = null; resolve(null); } }, limitMs);
      deliver();
    }),
    handsOver: () => { mode = "ours"; },
  });
})();
