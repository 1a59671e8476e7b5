"use strict";
// Needs observe.js. Tells what an action would set going, before it is done (policy/action_class.py, `Target`).
(() => {
  if (window !== window.top || pae.facts) return;

  const MAX_WORDS = 200, MAX_URL = 2000, MAX_FIELDS = 30, MAX_FIELD_NAME = 60;
  const SENDERS = new Set(["submit", "image"]), NOT_SENT = new Set(["submit", "image", "button", "reset"]);
  const ACTING = "a[href],button,input,select,textarea,summary,[contenteditable],[role],[onclick]";
  const METHODS = ["post", "put", "patch", "delete"];

  const { own } = pae;
  const attribute = (element, name) => own(element).getAttribute(name);
  const short = (text, limit = MAX_WORDS) => (text || "").replace(/\s+/g, " ").trim().slice(0, limit);
  const absolute = (url) => {
    try { return new URL(url, document.baseURI).href.slice(0, MAX_URL); } catch { return ""; }
  };
  const said = (element) => {
    const { type, value, title } = own(element);
    return [pae.nameOf(element), pae.textOf(element), NOT_SENT.has(type) ? value : "", title];
  };

  const active = () => {
    let element = document.activeElement;
    for (;;) {
      let inner = own(element)?.shadowRoot?.activeElement;
      try { inner ||= own(element)?.contentDocument?.activeElement; } catch { /* a frame of another origin */ }
      if (!inner) return element;
      element = inner;
    }
  };

  // What is sent when a button is pressed, or Enter in a field; null: nothing.
  const sending = (element, byEnter) => {
    const { form, type } = own(element);
    if (!form || !(SENDERS.has(type) || byEnter)) return null;
    const all = [...own(form).elements];
    const button = SENDERS.has(type) ? element : all.find((one) => SENDERS.has(one.type));
    const method = button && attribute(button, "formmethod") || attribute(form, "method");
    const action = button && attribute(button, "formaction") || attribute(form, "action");
    const names = all.filter((one) => one.name && !NOT_SENT.has(one.type)).map((one) => short(one.name, MAX_FIELD_NAME));
    const about = ["aria-label", "role", "id", "name"].map((name) => attribute(form, name));
    return {
      kind: "form", method: (method || "").toLowerCase(), url: absolute(action || ""), is_scripted: method === null && action === null,
      fields: [...new Set(names)].slice(0, MAX_FIELDS), words: short([...said(element), ...button ? said(button) : [], ...about].join(" ")),
    };
  };

  // Libraries that let an element itself send a request: hx-post="/x", data-method="delete" on a link.
  const asking = (element) => {
    for (const method of METHODS) {
      const url = attribute(element, `hx-${method}`) ?? attribute(element, `data-hx-${method}`);
      if (url !== null) return { method, url: absolute(url) };
    }
    const method = (attribute(element, "data-method") || attribute(element, "data-turbo-method") || "get").toLowerCase();
    return METHODS.includes(method) ? { method, url: absolute(attribute(element, "href") || "") } : null;
  };

  const leads = (link) => {
    if (!URL.canParse(link.href, document.baseURI)) return false;
    const url = new URL(link.href, document.baseURI), here = new URL(location.href);
    url.hash = here.hash = "";
    return /^https?:$/.test(url.protocol) && (!link.href.includes("#") || url.href !== here.href) && !link.hasAttribute("onclick");
  };

  // What would act where an element is pressed; null: nothing.
  const actingIn = (element) => (own(element)?.matches ? own(element).closest(ACTING) || element : null);
  // What pressing an element does (`byEnter`: the Enter key in it), or typing into it. `to`: where the button is let go
  // of; elsewhere that presses nothing.
  const facts = (aim, { typed, byEnter, to }) => {
    const acting = actingIn(aim === null ? active() : pae.find(aim).element), its = own(acting);
    if (!acting || (to !== null && actingIn(pae.find(to).element) !== acting)) return null;
    const link = its.closest("a[href]");
    const field = { field_type: its.type || "", autocomplete: attribute(acting, "autocomplete") || "",
      value: short(String(its.value ?? "")) };  // a list item's is a number
    const about = { name: short(pae.nameOf(acting)), words: short(said(acting).join(" ")), ...field };
    const enters = typed ? pae.submits(acting) : byEnter && its.tagName !== "TEXTAREA";
    const asked = asking(link || acting);
    if (asked) return { ...about, kind: "form", ...asked };
    const sent = !typed || enters ? sending(acting, enters) : null;
    if (sent) return { ...about, ...sent };
    if (enters && its.type === "search") return { ...about, kind: "control", words: `search ${about.words}` };
    if (typed || (enters && its.matches("input,textarea,select"))) return { ...about, kind: "field" };
    if (typeof link?.href === "string" && leads(link)) return { ...about, kind: "link", method: "get", url: absolute(link.href) };
    const isPlain = its.matches("summary,select,textarea,input:not([type=button])") || its.type === "reset";
    return { ...about, kind: isPlain ? "field" : "control" };
  };

  Object.assign(pae, { facts });
})();
