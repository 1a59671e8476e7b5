"use strict";
// Runs in an isolated world of the top document: it sees the page's DOM, the page sees nothing of it.
// Needs settle.js. Same-origin frames are read from the top; frames of other origins are pictures only.
(() => {
  if (window !== window.top || pae.collect) return;

  const NATIVE = "a[href],button,input,select,textarea,summary,[contenteditable=''],[contenteditable='true']";
  const ROLES = new Set(["button", "link", "checkbox", "tab", "menuitem", "menuitemcheckbox", "menuitemradio", "option",
    "switch", "radio", "combobox", "textbox", "searchbox", "slider", "spinbutton", "treeitem"]);
  const TEXT_INPUTS = new Set(["text", "search", "email", "url", "tel", "password", "number"]);
  const BUTTON_INPUTS = new Set(["submit", "button", "reset", "image"]);
  const UNREAD = new Set(["SCRIPT", "STYLE", "NOSCRIPT", "TEMPLATE", "HEAD", "SVG", "svg", "CANVAS", "VIDEO", "AUDIO", "OBJECT",
    "SELECT", "TEXTAREA", "DATALIST"]);
  const ITEMS = new Set(["LI", "TR", "ARTICLE", "FIGURE", "DD"]);
  const MAX_NAME = 100, MAX_OPTIONS = 12, MAX_ELEMENTS = 200, MAX_NODES = 60000;

  const { touch, watch } = pae;
  let marked = [];  // marked[n]: the element with mark n of the latest observation

  // ---- reading the page ----

  // A form's fields overshadow, by their names, what every element has (`<input name=children>`), in this world too: a
  // form is asked through its prototype. For reading only: what is returned is not the form.
  const own = (node) => (node?.[Symbol.toStringTag] === "HTMLFormElement" ? new Proxy({}, { get: (_, name) => {
    const value = Reflect.get(HTMLFormElement.prototype, name, node);
    return typeof value === "function" ? value.bind(node) : value;
  } }) : node);

  const squeeze = (text) => (text || "").replace(/\s+/g, " ").trim();
  const cut = (text) => (text.length > MAX_NAME ? text.slice(0, MAX_NAME - 1) + "…" : text);
  const parentOf = (node) => {
    const its = own(node);
    return its.assignedSlot || its.parentNode || its.host || its.defaultView?.frameElement || null;
  };
  const within = (node, ancestor) => {
    for (let up = node; up; up = parentOf(up)) if (up === ancestor) return true;
    return false;
  };

  // Where a frame's own coordinates lie in the top viewport, and the part of it that can be seen.
  const TOP = () => ({ left: 0, top: 0, right: innerWidth, bottom: innerHeight, dx: 0, dy: 0 });
  const spaceOf = (element) => {
    const frame = own(element).ownerDocument.defaultView?.frameElement;
    return frame ? spaceInside(frame, spaceOf(frame)) : TOP();
  };
  const spaceInside = (frame, space) => {
    const box = frame.getBoundingClientRect(), style = getComputedStyle(frame);
    const dx = space.dx + box.left + frame.clientLeft + parseFloat(style.paddingLeft);
    const dy = space.dy + box.top + frame.clientTop + parseFloat(style.paddingTop);
    const right = space.dx + box.right, bottom = space.dy + box.bottom;
    return { left: Math.max(space.left, dx), top: Math.max(space.top, dy), right: Math.min(space.right, right),
      bottom: Math.min(space.bottom, bottom), dx, dy };
  };
  const clip = (rect, space) => {
    const left = Math.max(rect.left + space.dx, space.left), right = Math.min(rect.right + space.dx, space.right);
    const top = Math.max(rect.top + space.dy, space.top), bottom = Math.min(rect.bottom + space.dy, space.bottom);
    return right - left >= 2 && bottom - top >= 2 ? { left, top, width: right - left, height: bottom - top } : null;
  };
  const largest = (target, space) => {
    let best = null;
    for (const rect of own(target).getClientRects()) {
      const box = clip(rect, space);
      if (box && (!best || box.width * box.height > best.width * best.height)) best = box;
    }
    return best;
  };

  // The innermost element at a point of the top viewport, through shadow roots and same-origin frames.
  const at = (x, y) => {
    let root = document, hit = null;
    for (;;) {
      const found = root.elementFromPoint(x, y);
      if (!found || found === hit) return hit;
      hit = found;
      const { shadowRoot, tagName } = own(found);
      if (shadowRoot) { root = shadowRoot; continue; }
      const inner = tagName === "IFRAME" ? frameDocument(found) : null;
      if (!inner) return hit;
      const space = spaceInside(found, { left: 0, top: 0, right: Infinity, bottom: Infinity, dx: 0, dy: 0 });
      x -= space.dx; y -= space.dy; root = inner;
    }
  };
  const frameDocument = (frame) => {
    try { return frame.contentDocument; } catch { return null; }
  };
  const POINTS = [[0.5, 0.5], [0.15, 0.5], [0.85, 0.5], [0.5, 0.2], [0.5, 0.8]];
  // A point of the box where a click reaches the element (or a label of it); null if something else is on top.
  const reachable = (element, box) => {
    for (const [fx, fy] of POINTS) {
      const x = box.left + box.width * fx, y = box.top + box.height * fy;
      const hit = at(x, y);
      if (hit && reaches(hit, element)) return { x, y };
    }
    return null;
  };
  const reaches = (hit, element) => within(hit, element) || own(hit).closest?.("label")?.control === element;
  // Box and point of an interactive element in the viewport; a hidden check box is reached through its label.
  const target = (element) => {
    const space = spaceOf(element);
    const candidates = own(element).tagName === "INPUT" ? [element, ...element.labels || []] : [element];
    for (const candidate of candidates) {
      if (!own(candidate).checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
      const box = largest(candidate, space) || inner(candidate, space);
      const point = box && reachable(element, box);
      if (point) return { box, point };
    }
    return null;
  };
  // A link around a block has an empty box of its own: what it holds counts.
  const inner = (element, space) => {
    for (const child of own(element).children) {
      const box = largest(child, space);
      if (box) return box;
    }
    return null;
  };

  const roleOf = (element) => (own(element).getAttribute("role") || "").trim().split(" ")[0];
  const interactive = (element, style) => {
    const its = own(element);
    if (its.matches(NATIVE)) return its.type !== "hidden";
    if (ROLES.has(roleOf(element)) || its.hasAttribute("onclick")) return true;
    if (its.tabIndex >= 0 && its.hasAttribute("tabindex")) return true;
    if (style.cursor !== "pointer" || its.tagName === "LABEL" || its.tagName === "OPTION") return false;
    const parent = its.parentElement;
    return !parent || getComputedStyle(parent).cursor !== "pointer";
  };
  const disabled = (element) => own(element).matches(":disabled")
    || own(element).getAttribute("aria-disabled") === "true" || own(element).closest("[inert]") !== null;

  const tagOf = (element) => {
    const its = own(element), tag = its.tagName.toLowerCase();
    if (tag === "input") {
      if (BUTTON_INPUTS.has(element.type)) return "button";
      return element.type === "text" ? "input" : `input:${element.type}`;
    }
    if (its.matches(NATIVE)) return its.isContentEditable ? "textarea" : tag === "summary" ? "button" : tag;
    const role = roleOf(element);
    return role === "link" ? "a" : ROLES.has(role) ? role : "button";
  };
  const textOf = (element) => {
    const { innerText, shadowRoot } = own(element), text = squeeze(innerText) || squeeze(shadowRoot?.textContent);
    if (text) return text;
    const picture = own(element).querySelector("img[alt],[aria-label],svg title");
    return squeeze(picture?.getAttribute("alt") || picture?.getAttribute("aria-label") || picture?.textContent);
  };
  const referred = (element, attribute) => squeeze((own(element).getAttribute(attribute) || "").split(/\s+/)
    .map((id) => (id && own(element).getRootNode().getElementById?.(id)?.textContent) || "").join(" "));
  const labelText = (element) => squeeze([...own(element).labels || []].map((label) => {
    const copy = label.cloneNode(true);
    for (const control of copy.querySelectorAll("input,select,textarea,button")) control.remove();
    return copy.textContent;
  }).join(" "));
  const isField = (element) => own(element).matches("input,select,textarea") && !BUTTON_INPUTS.has(element.type);
  const nameOf = (element) => {
    const its = own(element);
    return cut(squeeze(its.getAttribute("aria-label")) || referred(element, "aria-labelledby") || labelText(element)
      || (isField(element) || its.isContentEditable ? "" : textOf(element))
      || squeeze(its.getAttribute("placeholder")) || squeeze(its.title) || squeeze(its.getAttribute("alt"))
      || (BUTTON_INPUTS.has(its.type) ? squeeze(its.value) || (its.type === "submit" ? "Submit" : "") : ""));
  };
  const valueOf = (element) => {
    const its = own(element);
    if (its.matches("input[type=checkbox],input[type=radio]")) return element.checked ? "checked" : "";
    if (its.tagName === "SELECT") return [...element.selectedOptions].map((option) => squeeze(option.label)).join(", ");
    if (its.type === "password") return "•".repeat(element.value.length);
    if (isField(element)) return cut(squeeze(element.value));
    if (its.isContentEditable) return cut(squeeze(its.innerText));
    if (its.getAttribute("aria-checked") === "true") return "checked";
    return its.getAttribute("aria-selected") === "true" ? "selected" : "";
  };
  const choices = (element) => {
    if (own(element).tagName !== "SELECT") return [];
    const all = [...element.options].filter((option) => !option.disabled).map((option) => squeeze(option.label));
    return all.length > MAX_OPTIONS ? [...all.slice(0, MAX_OPTIONS), "…"] : all;
  };

  const isPane = (element, style) => {
    const { clientHeight, scrollHeight, ownerDocument } = own(element);
    return /auto|scroll/.test(style.overflowY) && clientHeight > 0 && scrollHeight > clientHeight + 8
      && element !== ownerDocument.scrollingElement;
  };
  const paneName = (element) => cut(squeeze(own(element).getAttribute("aria-label")) || referred(element, "aria-labelledby"));

  // One walk in document order; `panes`: what scrolls and holds no marked element is marked itself. Rows: [mark or 0, text]; text on the line or in the list item, table row or card of
  // the element before it joins that element's row.
  const collect = (panes) => {
    marked = [null];
    const elements = [], rows = [];
    let block = 0, row = null, numNodes = 0, cutShort = false;

    const add = (mark, text, box, item) => {
      const y = box.top + box.height / 2;
      const joins = row && !mark && (row.block === block || (item && row.item === item)
        || (Math.abs(y - row.y) < 6 && box.left >= row.right - 1));
      if (joins) {
        rows[rows.length - 1][1] += (row.block === block && row.text ? row.gap : "  ") + text;
      } else {
        rows.push([mark, text]);
        row = { item };
      }
      Object.assign(row, { block, y, right: box.left + box.width, text: !mark, gap: "" });
    };

    const readText = (node, state) => {
      const text = node.data.replace(/\s+/g, " ");
      if (text.trim() === "") {
        if (row && text) row.gap = " ";
        return;
      }
      const range = node.ownerDocument.createRange();
      range.selectNodeContents(node);
      const box = largest(range, state.space);
      if (!box || !seen(node.parentElement || node.getRootNode().host, box)) return;
      if (row && text.startsWith(" ")) row.gap = " ";
      add(0, text.trim(), box, state.item);
      row.gap = text.endsWith(" ") ? " " : "";
    };
    const seen = (parent, box) => {
      const hit = at(box.left + box.width / 2, box.top + box.height / 2);
      return !hit || within(hit, parent) || within(parent, hit) || getComputedStyle(parent).pointerEvents === "none";
    };

    const mark = (element, state, asPane = false) => {
      if (disabled(element)) return false;
      const found = target(element);
      if (!found) return false;
      if (marked.length > MAX_ELEMENTS) { cutShort = true; return false; }
      const name = asPane ? paneName(element) : nameOf(element);
      const before = elements[elements.length - 1];
      const { href } = own(element);
      if (href && before && before.name === name && own(marked[marked.length - 1]).href === href) return true;
      marked.push(element);
      const { left, top, width, height } = found.box;
      elements.push({ tag: asPane ? "pane" : tagOf(element), name, value: valueOf(element), options: choices(element),
        box: [left, top, width, height].map(Math.round) });
      add(marked.length - 1, "", found.box, state.item);
      return true;
    };

    const visit = (element, state) => {
      const its = own(element), style = its.ownerDocument.defaultView.getComputedStyle(element);
      if (style.display === "none" || style.contentVisibility === "hidden") return;
      if (its.tagName === "BR") { block += 1; return; }
      const isBlock = !/^(inline|contents|table-cell|ruby)/.test(style.display);
      const isCell = style.display === "table-cell" || style.display === "inline-block";
      if (isBlock) block += 1;
      if (isCell && row) row.gap = "  ";
      if (ITEMS.has(its.tagName) || /^(row|listitem)$/.test(roleOf(element))) state = { ...state, item: element };
      if (interactive(element, style) && mark(element, state)) state = { ...state, silent: true };
      if (its.tagName === "LABEL" && element.control && named(element)) state = { ...state, silent: true };
      if (its.getAttribute("aria-hidden") === "true" || style.opacity === "0") state = { ...state, silent: true };
      if (style.visibility === "hidden") state = { ...state, hidden: true };
      else if (state.hidden) state = { ...state, hidden: false };
      if (its.tagName === "IFRAME") enter(element, state);
      else if (!UNREAD.has(its.tagName)) {
        const numBefore = marked.length;
        children(element, state);
        if (panes && marked.length === numBefore && isPane(element, style)) mark(element, state, true);
      }
      if (isBlock) block += 1;
      if (isCell && row) row.gap = "  ";
    };
    const named = (label) => !disabled(label.control) && label.control.type !== "hidden" && target(label.control) !== null
      && !label.control.hasAttribute("aria-label");
    const enter = (frame, state) => {
      const doc = frameDocument(frame);
      if (!doc?.documentElement) return;
      watch(doc);
      visit(doc.documentElement, { ...state, space: spaceInside(frame, state.space) });
    };
    const children = (element, state) => {
      const { shadowRoot, tagName, childNodes } = own(element);
      let nodes = childNodes;
      if (shadowRoot) { watch(shadowRoot); nodes = shadowRoot.childNodes; }
      else if (tagName === "SLOT" && element.assignedNodes().length) nodes = element.assignedNodes();
      if (tagName === "DETAILS" && !element.open) nodes = [...nodes].filter((node) => own(node).tagName === "SUMMARY").slice(0, 1);
      for (const node of nodes) {
        if (++numNodes > MAX_NODES) { cutShort = true; return; }
        const { nodeType } = own(node);
        if (nodeType === Node.TEXT_NODE) { if (!state.silent && !state.hidden) readText(node, state); }
        else if (nodeType === Node.ELEMENT_NODE) visit(node, state);
      }
    };

    if (document.documentElement) visit(document.documentElement, { space: TOP(), item: null, silent: false, hidden: false });
    const scroller = document.scrollingElement;
    const below = cutShort || (scroller && scroller.scrollHeight - scroller.scrollTop - innerHeight > 8);
    const status = performance.getEntriesByType("navigation")[0]?.responseStatus || 0;
    return { url: location.href, title: document.title, status, elements, rows, below: Boolean(below) };
  };

  // ---- acting; each answers {problem, result} when the element can't be acted on as asked ----
  // What is aimed at is a mark or a point [x, y] of the top viewport.

  const no = (result, problem) => ({ result, problem });
  const owner = (hit) => {
    for (let up = hit; up; up = parentOf(up)) {
      const { nodeType, tagName } = own(up);
      if (nodeType !== Node.ELEMENT_NODE) continue;
      if (own(up).matches(NATIVE)) return up;
      if (tagName === "LABEL" && up.control) return up.control;
    }
    return hit;
  };
  const find = (aim) => {
    const element = Array.isArray(aim) ? owner(at(...aim)) : marked[aim];
    return own(element)?.isConnected ? { element } : no("gone", Array.isArray(aim) ? "is outside the page" : "is no longer there");
  };
  const covered = (element) => {
    const box = largest(element, spaceOf(element));
    if (!box) return no("hidden", "is no longer visible");
    const hit = at(box.left + box.width / 2, box.top + box.height / 2);
    const name = hit ? cut(textOf(hit)).slice(0, 40) : "";
    return no("covered", `is covered${name ? ` by "${name}"` : ""}`);
  };

  // Between the look for a point and the press there, the page may move what it shows. What an action sends is meant
  // for one element: if the first of its events goes to another one, all of them are held back, and `landed` tells.
  let aimed = null;
  const guard = (event) => {
    if (!aimed || !event.isTrusted) return;
    aimed.missed ??= !reaches(event.composedPath()[0], aimed.element);
    if (!aimed.missed) return;
    event.stopImmediatePropagation();
    event.preventDefault();
  };
  const GUARDED = ["pointerdown", "mousedown", "pointerup", "mouseup", "click", "keydown", "keypress", "keyup", "beforeinput"];
  const guarded = new WeakSet();
  const guardView = (view) => {
    if (guarded.has(view.document)) return;
    guarded.add(view.document);
    for (const type of GUARDED) view.addEventListener(type, guard, { capture: true, passive: false });
  };
  guardView(window);
  const aimAt = (element) => {
    guardView(own(element).ownerDocument.defaultView);
    aimed = { element };
  };
  // Whether what was sent since reached its element; true also where nothing was aimed at.
  const landed = () => {
    const missed = aimed?.missed;
    aimed = null;
    return missed ? no("moved", "moved away before it could be reached") : {};
  };

  // Scrolls to an element that can't be reached where it is; what stays in the way then, null if nothing.
  const obstacle = (element) => {
    if (!target(element)) own(element).scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
    return target(element) ? null : covered(element);
  };

  // Where the mouse is to go; `press`: to press there.
  const locate = (aim, press) => {
    const { element, ...gone } = find(aim);
    if (!element) return gone;
    touch();
    if (press && disabled(element)) return no("disabled", "is disabled");
    if (press && own(element).tagName === "SELECT") return no("unfit", "is a drop-down list: use Select");
    if (Array.isArray(aim)) return { x: aim[0], y: aim[1] };
    const hindered = obstacle(element);
    if (hindered) return hindered;
    if (press) aimAt(element);
    return target(element).point;
  };
  const announce = (element, ...types) => {
    for (const type of types) element.dispatchEvent(new Event(type, { bubbles: true, composed: true }));
  };
  // Focuses a field, its content selected or, to append, the caret behind it. `enter`: whether Enter is to follow;
  // `done`: nothing is left to type; `keys`: whether the text may come in pieces; `end`: whether the End key is needed.
  const prepare = (aim, text, append) => {
    const { element, ...gone } = find(aim);
    if (!element) return gone;
    touch();
    const its = own(element);
    if (disabled(element) || its.readOnly) return no("disabled", "can't be changed");
    if (its.tagName === "SELECT") return no("unfit", "is a drop-down list: use Select");
    const isText = isField(element) && !["checkbox", "radio", "file"].includes(its.type);
    if (!isText && !its.isContentEditable) return no("unfit", "is not a text field");
    const hindered = obstacle(element);
    if (hindered) return hindered;
    its.focus();
    if (its.isContentEditable) {
      const selection = its.ownerDocument.getSelection();
      selection.selectAllChildren(element);
      if (append) selection.collapseToEnd();
      aimAt(element);
      return { enter: false, done: false, keys: true, end: false };
    }
    if (element.tagName === "TEXTAREA" || TEXT_INPUTS.has(element.type)) {
      element.select();
      if (append && element.tagName === "TEXTAREA") element.setSelectionRange(element.value.length, element.value.length);
      aimAt(element);
      return { enter: submits(element), done: false, keys: element.type !== "number",
        end: append && element.tagName !== "TEXTAREA" };
    }
    if (append) return no("unfit", "can only be set as a whole: use Type");
    const set = element.value;
    element.value = text;
    if (element.value === "" && text !== "") {
      element.value = set;
      return no("unfit", `doesn't take "${text}"` + expected(element.type));
    }
    announce(element, "input", "change");
    return { enter: false, done: true };
  };
  const expected = (type) => ({ date: ": write YYYY-MM-DD", time: ": write HH:MM", month: ": write YYYY-MM",
    week: ": write YYYY-Wnn", "datetime-local": ": write YYYY-MM-DDTHH:MM" }[type] || "");
  const submits = (element) => {
    const { tagName, form, type } = own(element);
    if (tagName === "TEXTAREA") return false;
    if (!form) return type === "search";
    const fields = [...own(form).elements].filter((field) => field.tagName === "TEXTAREA"
      || (field.tagName === "INPUT" && TEXT_INPUTS.has(field.type)));
    return fields.length === 1;
  };
  const choose = (aim, wanted) => {
    const { element, ...gone } = find(aim);
    if (!element) return gone;
    touch();
    if (own(element).tagName !== "SELECT") return no("unfit", "is not a drop-down list");
    if (disabled(element)) return no("disabled", "is disabled");
    const hindered = obstacle(element);
    if (hindered) return hindered;
    const plain = (text) => squeeze(text).toLowerCase();
    const options = [...element.options].filter((option) => !option.disabled);
    const option = options.find((one) => plain(one.label) === plain(wanted))
      || options.find((one) => plain(one.value) === plain(wanted));
    if (!option) return no("unfit", `has no option "${wanted}"; it has: ${choices(element).join(", ")}`);
    if (element.multiple) option.selected = true;
    else element.selectedIndex = option.index;
    announce(element, "input", "change");
    return {};
  };
  const scrollable = (from, across) => {
    for (let up = from; up && up !== document; up = parentOf(up)) {
      const { nodeType, scrollWidth, clientWidth, scrollHeight, clientHeight } = own(up);
      if (nodeType !== Node.ELEMENT_NODE) continue;
      if (across ? scrollWidth <= clientWidth + 1 : scrollHeight <= clientHeight + 1) continue;
      if (up === document.scrollingElement) return up;
      const style = getComputedStyle(up);
      if (/auto|scroll/.test(across ? style.overflowX : style.overflowY)) return up;
    }
    return null;
  };
  // Scrolls by two thirds of what is seen; `moved` says whether anything did. Without an aim: the window, or the pane
  // that fills its middle where the window itself doesn't scroll.
  const scroll = (aim, direction) => {
    const across = direction === "left" || direction === "right";
    const sign = direction === "down" || direction === "right" ? 2 : -2;
    let pane = document.scrollingElement;
    if (aim !== null) {
      const { element, ...gone } = find(aim);
      if (!element) return gone;
      pane = scrollable(element, across);
    } else if (!pane || (across ? pane.scrollWidth <= innerWidth + 1 : pane.scrollHeight <= innerHeight + 1)) {
      pane = scrollable(at(innerWidth / 2, innerHeight / 2), across);
    }
    if (!pane) return { moved: false };
    touch();
    const isWindow = pane === document.scrollingElement, its = own(pane);
    const place = () => (across ? own(pane).scrollLeft : own(pane).scrollTop), before = place();
    if (across) its.scrollBy({ left: sign * (isWindow ? innerWidth : its.clientWidth) / 3, behavior: "instant" });
    else its.scrollBy({ top: sign * (isWindow ? innerHeight : its.clientHeight) / 3, behavior: "instant" });
    return { moved: Math.abs(place() - before) >= 1 };
  };

  // The mark of an element, of the one around it, or of its double that stands for both; 0 if none.
  const markOf = (element) => {
    for (let up = element; up; up = parentOf(up)) {
      const { tagName, href } = own(up);
      const mark = marked.findIndex((one) => one && (one === up || (tagName === "LABEL" && one === up.control)
        || (href && own(one).href === href && nameOf(one) === nameOf(up))));
      if (mark > 0) return mark;
    }
    return 0;
  };

  Object.assign(pae, { own, markOf, collect, locate, landed, prepare, choose, scroll, find, nameOf, textOf, submits });
})();
