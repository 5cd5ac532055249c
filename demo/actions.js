// Clicks on buttons with data-action become one 'act' event; the focus stays where the visitor left it.
let last = null;
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (!button || button.disabled) return;
  last = { action: button.dataset.action, key: button.dataset.key };
  trigger("act", last);
});
watch("value", () => {
  if (!last || (document.activeElement !== document.body && !element.contains(document.activeElement))) return;
  const step = { newer: 1, older: -1, remove: -1 }[last.action] ?? 0;
  const key = step ? String(Math.max(0, Number(last.key) + step)) : last.key;
  const find = (action, wanted) => element.querySelector(`[data-action="${action}"][data-key="${CSS.escape(wanted)}"]:enabled`);
  const target = find(last.action, key) ?? find("remove", key) ?? element.querySelector("[data-action]:enabled");
  last = null;
  target?.focus({ preventScroll: true });
});
