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

  const squeeze = (text) => (text || "").replace(/\s+/g, " ").trim();
  const cut = (text) => (text.length > MAX_NAME ? text.slice(0, MAX_NAME - 1) + "…" : text);
  const parentOf = (node) => node.assignedSlot || node.parentNode || node.host || node.defaultView?.frameElement || null;
  const within = (node, ancestor) => {
    for (let up = node; up; up = parentOf(up)) if (up === ancestor) return true;
    return false;
  };

  // Where a frame's own coordinates lie in the top viewport, and the part of it that can be seen.
  const TOP = () => ({ left: 0, top: 0, right: innerWidth, bottom: innerHeight, dx: 0, dy: 0 });
  const spaceOf = (element) => {
    const frame = element.ownerDocument.defaultView?.frameElement;
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
    for (const rect of target.getClientRects()) {
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
      if (found.shadowRoot) { root = found.shadowRoot; continue; }
      const inner = found.tagName === "IFRAME" ? frameDocument(found) : null;
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
      if (!hit) continue;
      if (within(hit, element)) return { x, y };
      const label = hit.closest?.("label");
      if (label && label.control === element) return { x, y };
    }
    return null;
  };
  // Box and point of an interactive element in the viewport; a hidden check box is reached through its label.
  const target = (element) => {
    const space = spaceOf(element);
    const candidates = element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) ? [element] : [];
    if (element.tagName === "INPUT") candidates.push(...element.labels || []);
    for (const candidate of candidates) {
      if (!candidate.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
      const box = largest(candidate, space) || inner(candidate, space);
      const point = box && reachable(element, box);
      if (point) return { box, point };
    }
    return null;
  };
  // A link around a block has an empty box of its own: what it holds counts.
  const inner = (element, space) => {
    for (const child of element.children) {
      const box = largest(child, space);
      if (box) return box;
    }
    return null;
  };

  const roleOf = (element) => (element.getAttribute("role") || "").trim().split(" ")[0];
  const interactive = (element, style) => {
    if (element.matches(NATIVE)) return element.type !== "hidden";
    if (ROLES.has(roleOf(element)) || element.hasAttribute("onclick")) return true;
    if (element.tabIndex >= 0 && element.hasAttribute("tabindex")) return true;
    if (style.cursor !== "pointer" || element.tagName === "LABEL" || element.tagName === "OPTION") return false;
    const parent = element.parentElement;
    return !parent || getComputedStyle(parent).cursor !== "pointer";
  };
  const disabled = (element) => element.matches(":disabled") || element.getAttribute("aria-disabled") === "true"
    || element.closest("[inert]") !== null;

  const tagOf = (element) => {
    const tag = element.tagName.toLowerCase();
    if (tag === "input") {
      if (BUTTON_INPUTS.has(element.type)) return "button";
      return element.type === "text" ? "input" : `input:${element.type}`;
    }
    if (element.matches(NATIVE)) return element.isContentEditable ? "textarea" : tag === "summary" ? "button" : tag;
    const role = roleOf(element);
    return role === "link" ? "a" : ROLES.has(role) ? role : "button";
  };
  const textOf = (element) => {
    const own = squeeze(element.innerText) || squeeze(element.shadowRoot?.textContent);
    if (own) return own;
    const picture = element.querySelector("img[alt],[aria-label],svg title");
    return squeeze(picture?.getAttribute("alt") || picture?.getAttribute("aria-label") || picture?.textContent);
  };
  const referred = (element, attribute) => squeeze((element.getAttribute(attribute) || "").split(/\s+/)
    .map((id) => (id && element.getRootNode().getElementById?.(id)?.textContent) || "").join(" "));
  const labelText = (element) => squeeze([...element.labels || []].map((label) => {
    const copy = label.cloneNode(true);
    for (const control of copy.querySelectorAll("input,select,textarea,button")) control.remove();
    return copy.textContent;
  }).join(" "));
  const isField = (element) => element.matches("input,select,textarea") && !BUTTON_INPUTS.has(element.type);
  const nameOf = (element) => cut(squeeze(element.getAttribute("aria-label")) || referred(element, "aria-labelledby")
    || labelText(element) || (isField(element) || element.isContentEditable ? "" : textOf(element))
    || squeeze(element.getAttribute("placeholder")) || squeeze(element.title) || squeeze(element.getAttribute("alt"))
    || (BUTTON_INPUTS.has(element.type) ? squeeze(element.value) || (element.type === "submit" ? "Submit" : "") : ""));
  const valueOf = (element) => {
    if (element.matches("input[type=checkbox],input[type=radio]")) return element.checked ? "checked" : "";
    if (element.tagName === "SELECT") return [...element.selectedOptions].map((option) => squeeze(option.label)).join(", ");
    if (element.type === "password") return "•".repeat(element.value.length);
    if (isField(element)) return cut(squeeze(element.value));
    if (element.isContentEditable) return cut(squeeze(element.innerText));
    if (element.getAttribute("aria-checked") === "true") return "checked";
    return element.getAttribute("aria-selected") === "true" ? "selected" : "";
  };
  const choices = (element) => {
    if (element.tagName !== "SELECT") return [];
    const all = [...element.options].filter((option) => !option.disabled).map((option) => squeeze(option.label));
    return all.length > MAX_OPTIONS ? [...all.slice(0, MAX_OPTIONS), "…"] : all;
  };

  // One walk in document order. Rows: [mark or 0, text]; text on the line or in the list item, table row or card of
  // the element before it joins that element's row.
  const collect = () => {
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

    const mark = (element, state) => {
      if (disabled(element)) return false;
      const found = target(element);
      if (!found) return false;
      if (marked.length > MAX_ELEMENTS) { cutShort = true; return false; }
      const name = nameOf(element);
      const before = elements[elements.length - 1];
      if (element.href && before && before.name === name && marked[marked.length - 1].href === element.href) return true;
      marked.push(element);
      const { left, top, width, height } = found.box;
      elements.push({ tag: tagOf(element), name, value: valueOf(element), options: choices(element),
        box: [left, top, width, height].map(Math.round) });
      add(marked.length - 1, "", found.box, state.item);
      return true;
    };

    const visit = (element, state) => {
      const style = element.ownerDocument.defaultView.getComputedStyle(element);
      if (style.display === "none" || style.contentVisibility === "hidden") return;
      if (element.tagName === "BR") { block += 1; return; }
      const isBlock = !/^(inline|contents|table-cell|ruby)/.test(style.display);
      const isCell = style.display === "table-cell" || style.display === "inline-block";
      if (isBlock) block += 1;
      if (isCell && row) row.gap = "  ";
      if (ITEMS.has(element.tagName) || /^(row|listitem)$/.test(roleOf(element))) state = { ...state, item: element };
      if (interactive(element, style) && mark(element, state)) state = { ...state, silent: true };
      if (element.tagName === "LABEL" && element.control && named(element)) state = { ...state, silent: true };
      if (element.getAttribute("aria-hidden") === "true" || style.opacity === "0") state = { ...state, silent: true };
      if (style.visibility === "hidden") state = { ...state, hidden: true };
      else if (state.hidden) state = { ...state, hidden: false };
      if (element.tagName === "IFRAME") enter(element, state);
      else if (!UNREAD.has(element.tagName)) children(element, state);
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
      let nodes = element.childNodes;
      if (element.shadowRoot) { watch(element.shadowRoot); nodes = element.shadowRoot.childNodes; }
      else if (element.tagName === "SLOT" && element.assignedNodes().length) nodes = element.assignedNodes();
      if (element.tagName === "DETAILS" && !element.open) nodes = [...nodes].filter((node) => node.tagName === "SUMMARY").slice(0, 1);
      for (const node of nodes) {
        if (++numNodes > MAX_NODES) { cutShort = true; return; }
        if (node.nodeType === Node.TEXT_NODE) { if (!state.silent && !state.hidden) readText(node, state); }
        else if (node.nodeType === Node.ELEMENT_NODE) visit(node, state);
      }
    };

    if (document.documentElement) visit(document.documentElement, { space: TOP(), item: null, silent: false, hidden: false });
    const scroller = document.scrollingElement;
    const below = cutShort || (scroller && scroller.scrollHeight - scroller.scrollTop - innerHeight > 8);
    const status = performance.getEntriesByType("navigation")[0]?.responseStatus || 0;
    return { url: location.href, title: document.title, status, elements, rows, below: Boolean(below) };
  };

  // ---- acting; each answers {problem} when the element can't be acted on as asked ----

  const find = (mark) => {
    const element = marked[mark];
    if (!element?.isConnected) return { problem: "is no longer there" };
    return { element };
  };
  const covered = (element) => {
    const box = largest(element, spaceOf(element));
    const hit = box && at(box.left + box.width / 2, box.top + box.height / 2);
    const name = hit ? cut(textOf(hit)).slice(0, 40) : "";
    return { problem: box ? `is covered${name ? ` by "${name}"` : ""}` : "is no longer visible" };
  };
  // Where to click.
  const locate = (mark) => {
    const { element, problem } = find(mark);
    if (problem) return { problem };
    touch();
    if (disabled(element)) return { problem: "is disabled" };
    if (element.tagName === "SELECT") return { problem: "is a drop-down list: use Select" };
    if (!target(element)) element.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
    const found = target(element);
    return found ? found.point : covered(element);
  };
  const announce = (element, ...types) => {
    for (const type of types) element.dispatchEvent(new Event(type, { bubbles: true, composed: true }));
  };
  // Focuses a field with its content selected; `enter`: whether Enter is to follow; `done`: nothing is left to type.
  const prepare = (mark, text) => {
    const { element, problem } = find(mark);
    if (problem) return { problem };
    touch();
    if (disabled(element) || element.readOnly) return { problem: "can't be changed" };
    if (element.isContentEditable) {
      element.focus();
      const selection = element.ownerDocument.getSelection();
      selection.selectAllChildren(element);
      return { enter: false, done: false };
    }
    if (element.tagName === "SELECT") return { problem: "is a drop-down list: use Select" };
    if (!isField(element) || ["checkbox", "radio", "file"].includes(element.type)) return { problem: "is not a text field" };
    if (!target(element)) element.scrollIntoView({ block: "center", behavior: "instant" });
    if (!target(element)) return covered(element);
    element.focus();
    if (element.tagName === "TEXTAREA" || TEXT_INPUTS.has(element.type)) {
      element.select();
      return { enter: submits(element), done: false };
    }
    element.value = text;
    if (element.value === "" && text !== "") return { problem: `doesn't take "${text}"` + expected(element.type) };
    announce(element, "input", "change");
    return { enter: false, done: true };
  };
  const expected = (type) => ({ date: ": write YYYY-MM-DD", time: ": write HH:MM", month: ": write YYYY-MM",
    "datetime-local": ": write YYYY-MM-DDTHH:MM" }[type] || "");
  const submits = (element) => {
    if (element.tagName === "TEXTAREA") return false;
    if (!element.form) return element.type === "search";
    const fields = [...element.form.elements].filter((field) => field.tagName === "TEXTAREA"
      || (field.tagName === "INPUT" && TEXT_INPUTS.has(field.type)));
    return fields.length === 1;
  };
  const choose = (mark, wanted) => {
    const { element, problem } = find(mark);
    if (problem) return { problem };
    touch();
    if (element.tagName !== "SELECT") return { problem: "is not a drop-down list" };
    if (disabled(element)) return { problem: "is disabled" };
    const plain = (text) => squeeze(text).toLowerCase();
    const options = [...element.options].filter((option) => !option.disabled);
    const option = options.find((one) => plain(one.label) === plain(wanted))
      || options.find((one) => plain(one.value) === plain(wanted));
    if (!option) return { problem: `has no option "${wanted}"; it has: ${choices(element).join(", ")}` };
    if (element.multiple) option.selected = true;
    else element.selectedIndex = option.index;
    announce(element, "input", "change");
    return {};
  };
  const scrollable = (from) => {
    for (let up = from; up && up !== document; up = parentOf(up)) {
      if (up.nodeType !== Node.ELEMENT_NODE || up.scrollHeight <= up.clientHeight + 1) continue;
      if (up === document.scrollingElement) return up;
      if (/auto|scroll/.test(getComputedStyle(up).overflowY)) return up;
    }
    return null;
  };
  // Scrolls by two thirds of what is seen; `moved` says whether anything did. Without a mark: the window, or the pane
  // that fills its middle where the window itself doesn't scroll.
  const scroll = (mark, down) => {
    let pane = document.scrollingElement;
    if (mark !== null) {
      const { element, problem } = find(mark);
      if (problem) return { problem };
      pane = scrollable(element);
    } else if (!pane || pane.scrollHeight <= innerHeight + 1) {
      pane = scrollable(at(innerWidth / 2, innerHeight / 2));
    }
    if (!pane) return { moved: false };
    touch();
    const height = pane === document.scrollingElement ? innerHeight : pane.clientHeight;
    const before = pane.scrollTop;
    pane.scrollBy({ top: (down ? 2 : -2) * height / 3, behavior: "instant" });
    return { moved: Math.abs(pane.scrollTop - before) >= 1 };
  };

  Object.assign(pae, { collect, locate, prepare, choose, scroll });
})();
