() => {
  // Light or dark: as the system says, until the visitor chooses; the choice is kept in this browser.
  const KEY = "llara-colours";
  const apply = (dark) => {
    document.body.classList.toggle("dark", dark);
    document.documentElement.style.colorScheme = dark ? "dark" : "light";
    for (const button of document.querySelectorAll("[data-colours]")) {
      button.setAttribute("aria-pressed", String(dark));
    }
  };
  const asked = new URL(location.href).searchParams.get("__theme");
  const kept = asked ?? localStorage.getItem(KEY);
  const system = matchMedia("(prefers-color-scheme: dark)");
  apply(kept ? kept === "dark" : system.matches);
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-colours]")) return;
    const dark = !document.body.classList.contains("dark");
    localStorage.setItem(KEY, dark ? "dark" : "light");
    apply(dark);
  });
}
